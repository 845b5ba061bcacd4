#!/usr/bin/env bash
# One seed of a profile: bash params/slurm/seed.sh PROFILE.yaml NAME SEED [more arguments of `crescent run` …]
#
# Several profiles, of which later ones win, are one argument: "params/llama3_8b.yaml params/two_nodes.yaml".
# The run is called NAME/seedSEED. The same command goes on where an earlier one was cut, and does nothing where it is
# done. What may be set beforehand:
#   SCRATCH           a large, fast folder that all nodes see; without it runs lie in the repository's outputs/
#   CRESCENT_OUTPUTS  folder of all runs (default: $SCRATCH/crescent). Its file system has to know flock.
#   HF_HOME           where models and benchmarks of the hub lie (default: $SCRATCH/huggingface). Where nodes reach no
#                     hub, fetch them on the login node with the same HF_HOME, then set HF_HUB_OFFLINE=1.
#   CRESCENT          the command (default: .venv/bin/crescent)
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
[ $# -ge 3 ] || { sed -n '2p' "${BASH_SOURCE[0]}" >&2; exit 2; }
read -ra profiles <<< "$1"
name=$2 seed=$3
shift 3

outputs=${CRESCENT_OUTPUTS:-${SCRATCH:+$SCRATCH/crescent}}
if [ -n "${SCRATCH:-}" ]; then  # homes are small and slow: what is fetched and compiled goes to the scratch folder too
    export HF_HOME=${HF_HOME:-$SCRATCH/huggingface}
    export VLLM_CACHE_ROOT=${VLLM_CACHE_ROOT:-$SCRATCH/cache/vllm}
    export TRITON_CACHE_DIR=${TRITON_CACHE_DIR:-$SCRATCH/cache/triton}
fi

# `exec`: a signal for this script reaches the run itself.
exec "${CRESCENT:-$root/.venv/bin/crescent}" run "${profiles[@]}" -p "run=$name/seed$seed" -p "seed=$seed" \
    ${outputs:+-p "outputs=$outputs"} -p 'other_runs=[]' "$@"
