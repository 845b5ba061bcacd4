#!/usr/bin/env bash
# Several seeds on one machine, one after the other, then all of them together:
#
#   bash params/slurm/seeds.sh params/h100_80gb.yaml h100 "1 2 3" [more arguments of `crescent run` …]
#
# The plain-shell twin of submit.sh, for a cloud machine without Slurm. Start it under nohup, tmux or systemd-run; where
# it is cut, the same command goes on. A seed that fails ends it. What may be set beforehand stands in seed.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 3 ] || { sed -n '4p' "${BASH_SOURCE[0]}" >&2; exit 2; }
profiles=$1 name=$2 seeds=$3
shift 3

read -ra each <<< "$seeds"
for seed in "${each[@]}"; do
    bash "$here/seed.sh" "$profiles" "$name" "$seed" "$@"
done
bash "$here/pool.sh" "$profiles" "$name" "$seeds" "$@"
