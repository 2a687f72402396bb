#!/usr/bin/env bash
# scripts/gpu.sh pack             builds for sm_90 into .gpu/, with the libraries that a machine with a GPU may lack
# scripts/gpu.sh run PHASE...     there: smoke ops memcheck stages ours torch xl racecheck, best in this order and a call each;
#                                 results are added to perf/results/result.json, or to its copy in RESULTS_DIR
# scripts/gpu.sh build [-D...]    what both do where they must: builds the programs into build/gpu
# scripts/gpu.sh check            whether the packed programs need no more than such a machine has
# Exit code 2: wrong use or nothing packed. `run` goes on after a failure and ends with 1. See docs/cuda.md.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

pack=$PWD/.gpu
root=$PWD/build/gpu-root # where .gpu/, which travels, is unpacked
committed=perf/results/result.json
results=${RESULTS_DIR:-perf/results}/result.json
log=${RESULTS_DIR:-build}/gpu.log # whole outputs
limit_bytes=$((40 << 20))
peak_tflops=989 # bf16, dense, of an H100 SXM and an H200 (NVIDIA's data sheets)
phases='smoke ops memcheck stages ours torch xl racecheck'
programs=(tests/cuda/{describe,device_test,formulas_test,stream_test,device_memory_test,thrust_test,ops,products_test,attention_test,train_step_test}_cuda
  examples/train_gpt perf/perf_gpu_{adamw,kernels,products} perf/perf_allocator ashlar)
libraries=(zlib1g libdnnl2 libopenblas0-pthread libhwy1 libgomp1 libfmt9 ocl-icd-libopencl1 libgfortran5 libquadmath0)
headers=(zlib1g-dev libdnnl-dev libhwy-dev libfmt-dev nlohmann-json3-dev doctest-dev libcli11-dev ocl-icd-opencl-dev opencl-c-headers)
newest_glibc=2.36
allowed='^(libdnnl\.so\.2|libhwy\.so\.1|libfmt\.so\.9|libstdc\+\+\.so\.6|libgcc_s\.so\.1|lib[cm]\.so\.6|ld-linux-x86-64\.so\.2)$'

die() {
  echo "gpu.sh: $*" >&2
  exit 2
}

sources_hash() {
  find CMakeLists.txt CMakePresets.json cmake include src optimizers sharding cuda tests examples perf -type f -not -path 'perf/results/*' -not -path '*/__pycache__/*' -print0 |
    LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum | cut -d ' ' -f 1
}

unpack() {
  cmp -s "$pack/sources" "$root/done" && return
  rm -rf "$root"
  mkdir -p "$root"
  tar -xJf "$pack/programs.tar.xz" -C "$root" 2>/dev/null || python3 -m tarfile -e "$pack/programs.tar.xz" "$root" ||
    die "could not unpack $pack/programs.tar.xz; tar with xz, or python3 with lzma, must be there"
  local deb
  for deb in "$pack"/debs/*.deb; do
    if command -v dpkg-deb >/dev/null; then
      dpkg-deb -x "$deb" "$root"
    else
      ar p "$deb" data.tar.xz | tar -xJ -C "$root"
    fi || die "could not unpack $deb; dpkg-deb, or ar and tar with xz, must be there"
  done
  cp "$pack/sources" "$root/done"
}

# --- pack

build() {
  if command -v ccache >/dev/null; then export CMAKE_CXX_COMPILER_LAUNCHER=ccache; fi
  export CCACHE_BASEDIR=$PWD
  cmake --preset gpu "$@"
  cmake --build build/gpu --target "${programs[@]##*/}" ashlar_cli # the program ashlar; ashlar is the library
}

pack_all() {
  scripts/gpu.sh build || die "the build failed; pack needs nvcc and what scripts/build.sh installs"
  rm -rf "${pack:?}/bin" "$root"
  mkdir -p "$root/bin" "$pack/debs"
  local program package missing=()
  for program in "${programs[@]}"; do
    strip -o "$root/bin/${program##*/}" "build/gpu/$program"
  done
  tar -cC "$root" bin | xz --lzma2=preset=1,dict=96MiB >"$pack/programs.tar.xz" # the same library is in each: a tenth is left
  for package in "${libraries[@]}" "${headers[@]}"; do
    compgen -G "$pack/debs/${package}_*.deb" >/dev/null || missing+=("$package")
  done
  ((${#missing[@]} == 0)) || (cd "$pack/debs" && apt-get -qq -o APT::Sandbox::User=root download "${missing[@]}") ||
    die "apt-get could not download ${missing[*]}"
  rm -rf "$pack/cudnn-frontend"
  [[ ! -d .cache/cudnn-frontend ]] || cp -r .cache/cudnn-frontend "$pack/" # for a build over there
  sources_hash >"$pack/sources"
  commit=$(git rev-parse --short HEAD)
  [[ -z $(git status --porcelain) ]] || commit+=-dirty
  echo "$commit" >"$pack/commit"
  check
  local bytes
  bytes=$(du -sb "$pack" | cut -f 1)
  ((bytes <= limit_bytes)) || die ".gpu/ has $bytes bytes, more than $limit_bytes: pack fewer programs or packages"
  echo "packed .gpu/ of $commit: $((bytes >> 20)) MiB of at most $((limit_bytes >> 20))"
}

check() {
  [[ -e $pack/commit || -e $pack/sources ]] || {
    echo "skipped: nothing is packed; run scripts/gpu.sh pack"
    exit 77
  }
  unpack
  local program failed=0 library version
  for program in "$root"/bin/*; do
    while read -r library; do
      [[ $library =~ $allowed ]] && continue
      echo "$program needs $library, which is not on the list in scripts/gpu.sh" >&2
      failed=1
    done < <(readelf -d "$program" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p')
    version=$(readelf -V "$program" | grep -o 'GLIBC_[0-9.]*' | cut -d _ -f 2 | sort -Vu | tail -n 1)
    [[ $(printf '%s\n' "$version" "$newest_glibc" | sort -V | tail -n 1) == "$newest_glibc" ]] && continue
    echo "$program needs glibc $version; $newest_glibc is the newest allowed" >&2
    failed=1
  done
  return "$failed"
}

# --- run

# pip_folders NAME PACKAGE...: the folders lib or include of NVIDIA's pip packages, separated by colons
pip_folders() {
  python3 - "$@" <<'PY' 2>/dev/null || true
import nvidia, os, sys
name, packages = sys.argv[1], sys.argv[2:]
paths = (os.path.join(q, n, name) for n in packages for q in nvidia.__path__)
print(":".join(filter(os.path.isdir, paths)))
PY
}

library_path() {
  local lib=$root/usr/lib/x86_64-linux-gnu pip
  pip=$(pip_folders lib cu13 cudnn nccl)
  echo "$lib:$lib/openblas-pthread${pip:+:$pip}${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}"
}

in_pack() { LD_LIBRARY_PATH=$libraries_here "$@"; }

starts() { # a program starts when it says what the GPU is, or that there is none
  local code=0
  in_pack "$1/describe_cuda" >/dev/null 2>&1 || code=$?
  ((code == 0 || code == 77))
}

choose_programs() {
  bin=$root/bin
  starts "$bin" && return
  echo "the packed programs do not start here: $(in_pack "$bin/describe_cuda" 2>&1 >/dev/null | tail -n 1)"
  step build 420 scripts/gpu.sh build -DCMAKE_PREFIX_PATH="$root/usr" -DCMAKE_CUDA_ARCHITECTURES=native \
    -DASHLAR_CUDNN_FRONTEND_INCLUDE="$pack/cudnn-frontend/include" -DASHLAR_CUDNN_INCLUDE="$(pip_folders include cudnn)" || exit 1
  bin=$work/bin
  mkdir -p "$bin"
  local program
  for program in "${programs[@]}"; do ln -sf "$PWD/build/gpu/$program" "$bin/"; done
  starts "$bin" || die "the programs built here do not start either: $(in_pack "$bin/describe_cuda" 2>&1 | tail -n 1)"
}

# step NAME SECONDS COMMAND...: runs it, and merges what came of it into the results. Python has libraries of its own.
step() {
  local name=$1 seconds=$2 code=0 begin=$SECONDS path=$libraries_here
  shift 2
  [[ $1 != python3 ]] || path=${LD_LIBRARY_PATH:-}
  rm -f "$work"/{output,ops,kernels}
  echo "== $name"
  LD_LIBRARY_PATH=$path ASHLAR_LIBRARIES=$libraries_here ASHLAR_OP_RESULTS=$work/ops ASHLAR_KERNELS=$work/kernels \
    timeout --kill-after=10 "$seconds" "$@" >"$work/output" 2>&1 || code=$?
  { echo "== $name: $*" && cat "$work/output"; } >>"$log"
  python3 scripts/gpu_results.py "$results" --name "$name" --command "${*//$PWD\//}" --commit "$(cat "$pack/commit")" \
    --device "$device" --exit-code "$code" --seconds "$((SECONDS - begin))" --limit "$seconds" --work "$work" || failed=1
  ((code == 0)) || failed=1
  return "$code"
}

# Limits of all commands add to 30 minutes.
phase() {
  local program train=(python3 perf/gpu/train.py --train_gpt "$bin/train_gpt" --ashlar "$bin/ashlar")
  case $1 in
    smoke)
      step smoke.describe 30 "$bin/describe_cuda" || true
      for program in device_test formulas_test stream_test thrust_test; do
        step "smoke.$program" 20 "$bin/${program}_cuda" || true
      done
      step smoke.device_memory_test 60 "$bin/device_memory_test_cuda" || true
      ;;
    ops)
      step ops.table 50 "$bin/perf_gpu_products" --peak-tflops "$peak_tflops" || true
      step ops 130 "$bin/ops_cuda" || true
      step ops.products 50 "$bin/products_test_cuda" || true
      step ops.attention 50 "$bin/attention_test_cuda" || true
      ;;
    memcheck | racecheck)
      ASHLAR_GPU_RUNS=1 step "sanitize.$1" 160 compute-sanitizer --tool "$1" --error-exitcode 9 "$bin/ops_cuda" || true
      ;;
    stages)
      step stages.small 70 "$bin/train_step_test_cuda" || true
      step stages 140 "${train[@]}" stages || true
      ;;
    ours)
      step ours 130 "${train[@]}" ours --peak-tflops "$peak_tflops" || true
      step ours.kernels 60 "$bin/perf_gpu_kernels" --recompute none --peak-tflops "$peak_tflops" || true
      step ours.adamw 40 "$bin/perf_gpu_adamw" || true
      step ours.allocator 60 "$bin/perf_allocator" --device cuda --rounds 5 || true
      ;;
    torch)
      step torch 380 python3 perf/gpu/torch_gpt.py --seconds 370 || true
      step torch.adamw 30 python3 perf/gpu/torch_gpt.py --adamw 1000000000 || true
      ;;
    xl) step xl 110 "${train[@]}" xl || true ;;
  esac
}

run_phases() {
  local name
  (($# > 0)) || die "run needs phases: $phases"
  for name in "$@"; do
    [[ " $phases " == *" $name "* ]] || die "no phase '$name'; choose of $phases"
  done
  command -v python3 >/dev/null || die "run needs python3, which writes the results"
  [[ -e $pack/commit ]] || die "nothing is packed; run scripts/gpu.sh pack where the toolkit is, and bring .gpu/ along"
  [[ $(sources_hash) == "$(cat "$pack/sources")" ]] || die "the sources differ from the packed ones; run scripts/gpu.sh pack again"
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  export PATH=$PATH:/usr/local/cuda/bin:/usr/local/cuda/compute-sanitizer
  mkdir -p "$(dirname "$log")" "$(dirname "$results")"
  [[ -e $results || ! -e $committed ]] || cp "$committed" "$results"
  { uname -r && nproc && grep -E '^(Mem|Swap)' /proc/meminfo && cat /proc/sys/vm/overcommit_memory && nvidia-smi; } >"$log" 2>&1 || true
  failed=0 device=''
  unpack
  libraries_here=$(library_path)
  choose_programs
  device=$(in_pack "$bin/describe_cuda" 2>/dev/null || true)
  for name in "$@"; do phase "$name"; done
  echo "results: $results; what the programs said: $log"
  return "$failed"
}

case ${1:-} in
  pack) pack_all ;;
  run) run_phases "${@:2}" ;;
  build) build "${@:2}" ;;
  check) check ;;
  *) die "say pack, run PHASE..., build or check" ;;
esac
