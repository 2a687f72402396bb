#!/usr/bin/env bash
# scripts/test.sh [release|dev|asan|tsan|cuda] [ctest arguments...]
# Builds everything and runs every test. Where the release build found CUDA, the programs are built without it too, as
# on a machine that has no toolkit, and the tests of what takes its place run (not with ctest arguments).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${1:-release}
scripts/build.sh "$preset"
ctest --preset "$preset" "${@:2}"
if [[ $preset == release && $# -lt 2 ]] && grep -qs '^CMAKE_CUDA_COMPILER:' build/release/CMakeCache.txt; then
  scripts/build.sh no-cuda train_gpt quickstart test_runtime test_nccl
  ctest --preset no-cuda -R '^(runtime|nccl|example.quickstart)$'
fi
