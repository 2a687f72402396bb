#!/usr/bin/env bash
# Trains a small GPT on the C++ standard library's headers: 2 MPI ranks, parameters, gradients and Adam states sharded
# over them (ZeRO stage 3). Under 8 minutes on 2 cores, build included.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/build.sh release train_gpt
mkdir -p build/demo
if [[ -t 2 ]]; then export ASHLAR_PROGRESS=terminal; fi # the launcher's pipes hide the terminal from the ranks

mpiexec -n 2 build/release/examples/train_gpt \
  --model tiny --seq 256 --batch 8 --steps 1200 \
  --lr 3e-3 --warmup 50 --schedule cosine --weight-decay 0.1 --clip 1 \
  --text /usr/include/c++/* --validation 0.1 --validate-every 200 \
  --stage 3 --threads 1 --sample 500 \
  --metrics build/demo/metrics.jsonl --plot build/demo/curves.svg "$@"
