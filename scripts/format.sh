#!/usr/bin/env bash
# scripts/format.sh [--fix]: checks (or makes) every C++ file as clang-format wants it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

if ! command -v clang-format >/dev/null; then
  echo "format.sh: clang-format is not installed; run: apt-get install clang-format" >&2
  exit 2
fi
mode=(--dry-run -Werror)
if [[ ${1:-} == --fix ]]; then mode=(-i); fi
git ls-files -z --cached --others --exclude-standard '*.cpp' '*.hpp' '*.h' '*.cu' | xargs -0 clang-format "${mode[@]}"
