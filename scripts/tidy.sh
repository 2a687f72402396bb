#!/usr/bin/env bash
# scripts/tidy.sh [file.cpp...]: clang-tidy over the named sources, or all of the library's and the examples'.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! tidy=$(command -v clang-tidy-19); then
  echo "tidy.sh: clang-tidy-19 is not installed; run: apt-get install clang-tidy-19" >&2
  exit 2
fi
[[ -e build/release/compile_commands.json ]] || scripts/build.sh release
files=("$@")
if [[ ${#files[@]} -eq 0 ]]; then
  mapfile -t files < <(git ls-files 'src/*.cpp' 'optimizers/*.cpp' 'sharding/*.cpp' 'examples/*.cpp')
fi
printf '%s\0' "${files[@]}" |
  xargs -0 -n 1 -P "$(nproc)" "$tidy" -p build/release --quiet --extra-arg=-Wno-unknown-warning-option --extra-arg=-Wno-deprecated-declarations
