#!/usr/bin/env bash
# Installs a build into a fresh folder, moves the folder, builds the consumer and the examples against it, and runs them.
set -euo pipefail
way=$1 cmake=$2 build=$3 compiler=$4 work=$5 libdir=$6 torch=$7
here=$(cd "$(dirname "$0")" && pwd)

rm -rf "$work"
mkdir -p "$work"
"$cmake" --install "$build" --prefix "$work/first" >"$work/install.log"
mv "$work/first" "$work/prefix"

if [[ $way == cmake ]]; then
  "$cmake" -S "$here/project" -B "$work/build" -DCMAKE_PREFIX_PATH="$work/prefix" -DCMAKE_CXX_COMPILER="$compiler" \
    -DCMAKE_BUILD_TYPE=Release -DASHLAR_EXAMPLES="$here/../../examples" -DASHLAR_TORCH="$torch"
  "$cmake" --build "$work/build"
  for program in consumer quickstart wrap_raw wrap_eigen wrap_llmc consumer_torch; do
    if [[ -e $work/build/$program ]]; then "$work/build/$program"; fi
  done
else
  export PKG_CONFIG_PATH="$work/prefix/$libdir/pkgconfig"
  # shellcheck disable=SC2046  # the flags are words
  "$compiler" -std=c++20 "$here/project/consumer.cpp" $(pkg-config --cflags --libs ashlar) -o "$work/consumer"
  "$work/consumer"
fi
