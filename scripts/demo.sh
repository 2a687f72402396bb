#!/usr/bin/env bash
# Trains a small GPT on the C++ standard library's headers: 2 MPI ranks, parameters, gradients and Adam states sharded
# over them (ZeRO stage 3). Under 8 minutes on 2 cores, build included. Ends with exit code 1 when the model has learnt too
# little.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

scripts/build.sh release train_gpt
mkdir -p build/demo
if [[ -t 2 ]]; then export ASHLAR_PROGRESS=terminal; fi # the launcher's pipes hide the terminal from the ranks

target=1.40 # nats per byte of text it has not seen, with the flags below

mpiexec -n 2 build/release/examples/train_gpt \
  --model tiny --seq 256 --batch 8 --steps 1200 \
  --lr 3e-3 --warmup 50 --schedule cosine --weight-decay 0.1 --clip 1 \
  --text /usr/include/c++/* --validation 0.1 --validate-every 200 \
  --stage 3 --threads 1 --sample 500 \
  --metrics build/demo/metrics.jsonl --plot build/demo/curves.svg "$@"

(($#)) && exit # other flags, another result
loss=$(sed -n 's/.*"validation_loss":\([0-9.e+-]*\).*/\1/p' build/demo/metrics.jsonl | tail -n 1)
if ! awk -v loss="${loss:-none}" -v target="$target" 'BEGIN { exit !(loss + 0 > 0 && loss + 0 < target) }'; then
  echo "demo: the validation loss is ${loss:-missing}; it should end below $target nats/byte" >&2
  exit 1
fi
printf 'validation loss %.3f: below the target of %s nats/byte\n' "$loss" "$target"
