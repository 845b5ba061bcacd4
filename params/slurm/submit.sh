#!/usr/bin/env bash
# Several seeds on a Slurm cluster, each a task of one job array, and a last job that pools them:
#
#   bash params/slurm/submit.sh params/h100_80gb.yaml h100 "1 2 3" [more arguments of `crescent run` …]
#
# Options of your cluster go into SBATCH_OPTIONS, e.g. SBATCH_OPTIONS="--account=lab --partition=gpu --time=12:00:00";
# those of the last job, which needs no GPU, into POOL_OPTIONS. What else may be set stands in seed.sh.
# Make the environment on the login node first (`make setup SETUP=--cuda`), and log in to the hub for gated models.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
[ $# -ge 3 ] || { sed -n '4p' "${BASH_SOURCE[0]}" >&2; exit 2; }
profiles=$1 name=$2 seeds=$3
shift 3

cd "$root"
mkdir -p outputs/slurm
read -ra each <<< "$seeds"
read -ra options <<< "${SBATCH_OPTIONS:-}"
read -ra pool_options <<< "${POOL_OPTIONS:---time=02:00:00 --cpus-per-task=4 --mem=32G}"
array=$(IFS=,; sbatch --parsable --chdir="$root" --array="${each[*]}" "${options[@]}" \
    params/slurm/seed.sbatch "$profiles" "$name" "$@")
array=${array%%;*}  # "JOB;CLUSTER" where there are several clusters
printf -v pool '%q ' bash params/slurm/pool.sh "$profiles" "$name" "$seeds" "$@"
pooled=$(sbatch --parsable --chdir="$root" --job-name=crescent-pool --output=outputs/slurm/%x-%j.log \
    --dependency="afterok:$array" --kill-on-invalid-dep=yes "${pool_options[@]}" --wrap "$pool")
echo "seeds: job array $array; pooled afterwards by job ${pooled%%;*}; logs in outputs/slurm/"
