#!/usr/bin/env bash
# scripts/kernel_registers.sh [--update] [nvcc]
# Compiles cuda/kernels/*.cu for each architecture and compares what ptxas says of registers, shared memory and spills with
# docs/kernel-registers.md, which --update writes. A spill fails in any case. Another nvcc than the table's: exit 77.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

update=no
if [[ ${1:-} == --update ]]; then
  update=yes
  shift
fi
nvcc=${1:-$(command -v nvcc || echo /usr/local/cuda/bin/nvcc)}
page=docs/kernel-registers.md
version=$("$nvcc" --version | sed -n 's/.* V\([0-9.]*\)$/\1/p')
if [[ $update == no ]] && ! grep -q "nvcc $version " "$page"; then
  echo "skipped: $page was made by another nvcc than $version"
  exit 77
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# What ptxas says of one file: "file:kernel sm registers shared-bytes stack-bytes spill-bytes" per line, names without arguments.
resources() {
  local name architecture code=()
  name=$(basename "$1")
  for architecture in 80 90 100; do code+=("-gencode=arch=compute_$architecture,code=sm_$architecture"); done
  "$nvcc" -std=c++20 --expt-relaxed-constexpr --fmad=false -Iinclude -Isrc -I. "${code[@]}" -fatbin -Xptxas -v \
    -o "$work/$name.fatbin" "$1" 2>&1 | c++filt | awk -v file="$name" '
      /error/ { print > "/dev/stderr"; failed = 1 }
      /Compiling entry function/ {
        name = sm = $0
        sub(/^.*sm_/, "", sm); sub(/[^0-9].*$/, "", sm)
        sub(/^[^\x27]*\x27/, "", name); sub(/\x27 for .*$/, "", name)
        gsub(/\(anonymous namespace\)::|ashlar::cuda::|ashlar::/, "", name)
        sub(/^void /, "", name); sub(/\([^()]*\)$/, "", name); gsub(/ /, "", name)
      }
      /bytes stack frame/ { stack = $1; spills = $5 + $9 }
      /Used [0-9]+ registers/ {
        shared = match($0, /[0-9]+ bytes smem/) ? substr($0, RSTART, RLENGTH) + 0 : 0
        match($0, /Used [0-9]+/)
        print file ":" name, sm, substr($0, RSTART + 5, RLENGTH - 5), shared, stack, spills
      }
      END { exit failed }' >"$work/$name.resources"
}

export -f resources
export nvcc work
printf '%s\n' cuda/kernels/*.cu | xargs -P "$(nproc)" -I{} bash -euo pipefail -c 'resources {}'
sort -t ' ' -k1,1 -k2,2n "$work"/*.resources >"$work/resources"
[[ -s $work/resources ]] || { echo "kernel_registers.sh: no kernels in cuda/kernels" >&2; exit 1; }

if awk '$6 > 0 { print "spills " $6 " bytes: " $1 " for sm_" $2; found = 1 } END { exit !found }' "$work/resources" >&2; then
  exit 1
fi
{
  echo "# Registers of our kernels"
  echo
  echo "As ptxas of nvcc $version reports them (\`-Xptxas -v\`): registers per thread for sm_80, sm_90 and sm_100, static shared"
  echo "bytes and bytes of stack of the largest of the three. None spills. \`scripts/kernel_registers.sh --update\` wrote it."
  echo
  echo "| file | kernel | sm_80 | sm_90 | sm_100 | shared | stack |"
  echo "|---|---|---|---|---|---|---|"
  awk '{ if ($1 != name) flush(); name = $1; registers = registers " " $3 " |"
         if ($4 > shared) shared = $4; if ($5 > stack) stack = $5 }
       function flush() { if (name != "") { at = index(name, ":"); print "| " substr(name, 1, at - 1) " | `" substr(name, at + 1) "` |" registers, shared " | " stack " |" }
                          registers = ""; shared = stack = 0 }
       END { flush() }' "$work/resources"
} >"$work/page"
if [[ $update == yes ]]; then
  cp "$work/page" "$page"
elif ! diff "$page" "$work/page"; then
  echo "$page differs; if that is meant, run scripts/kernel_registers.sh --update" >&2
  exit 1
fi
