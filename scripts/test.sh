#!/usr/bin/env bash
# scripts/test.sh [release|dev|asan|tsan|cuda] [ctest arguments...]
# Builds everything and runs every test.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${1:-release}
scripts/build.sh "$preset"
exec ctest --preset "$preset" "${@:2}"
