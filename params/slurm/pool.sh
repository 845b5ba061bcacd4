#!/usr/bin/env bash
# Seeds together: bash params/slurm/pool.sh PROFILE.yaml NAME "SEED SEED …" [more arguments of `crescent run` …]
#
# The run NAME/pooled replays the first seed out of its store and takes the others' scores beside it. It needs no GPU
# and no model, changes none of the runs, and ends with the table over all seeds and NAME/pooled/report.html.
# The arguments and the environment are those of seed.sh.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
[ $# -ge 3 ] || { sed -n '2p' "${BASH_SOURCE[0]}" >&2; exit 2; }
profiles=$1 name=$2
read -ra seeds <<< "$3"
shift 3

others=
for seed in "${seeds[@]:1}"; do
    others+="${others:+, }$name/seed$seed"
done
# Later values of a parameter win, so these stand behind those that seed.sh sets.
exec bash "$here/seed.sh" "$profiles" "$name" "${seeds[0]}" "$@" \
    -p "run=$name/pooled" -p engine=replay -p "replay_from=$name/seed${seeds[0]}" -p "other_runs=[$others]"
