#!/usr/bin/env bash
# scripts/build.sh [release|dev|asan|tsan|no-cuda|cuda] [target...]
# Installs what is missing of scripts/apt-packages.txt (with targets named: but for what only tests need), fetches the
# headers of cuDNN's frontend from PyPI where nvcc is, configures, and builds into build/<preset>. With targets named a fresh
# build leaves CUDA out, until all is built. Says nothing when there is nothing to do.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

preset=${1:-release}
targets=("${@:2}")
case $preset in
  release | dev | asan | tsan | no-cuda | cuda) ;;
  *)
    echo "build.sh: no preset '$preset'; choose release, dev, asan, tsan, no-cuda or cuda" >&2
    exit 2
    ;;
esac

installed=()
install_packages() {
  local package purpose missing=() root=()
  command -v dpkg-query >/dev/null || return 0 # not Debian: CMake names what it does not find
  while read -r package purpose; do
    [[ $purpose == "# tests" && ${#targets[@]} -gt 0 ]] && continue
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
  done < <(grep -v '^#' scripts/apt-packages.txt)
  [[ ${#missing[@]} -gt 0 ]] || return 0
  if [[ $EUID -ne 0 ]]; then
    if ! command -v sudo >/dev/null; then
      echo "build.sh: as root, run: apt-get install ${missing[*]}" >&2
      exit 2
    fi
    root=(sudo)
  fi
  echo "Installing ${missing[*]}"
  local log
  log=$(mktemp)
  if ! { "${root[@]}" apt-get update &&
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "${missing[@]}"; } \
    >"$log" 2>&1; then
    cat "$log" >&2
    echo "build.sh: apt-get could not install the packages above" >&2
    exit 2
  fi
  rm -f "$log"
  installed=("${missing[@]}")
}

# The headers of cuDNN's frontend, which Debian does not have: into .cache, where CMake looks for them.
fetch_cudnn_frontend() {
  local version=1.32.0 into=.cache/cudnn-frontend work
  [[ $preset != asan && $preset != tsan && ${#targets[@]} -eq 0 ]] || return 0
  command -v nvcc >/dev/null || [[ -x /usr/local/cuda/bin/nvcc ]] || return 0
  [[ $(cat "$into/version" 2>/dev/null) == "$version" ]] && return 0
  work=$(mktemp -d)
  if python3 -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.11 \
    --platform manylinux_2_28_x86_64 --dest "$work" "nvidia-cudnn-frontend==$version" >"$work/log" 2>&1 &&
    python3 -m zipfile -e "$work"/*.whl "$work/wheel" >>"$work/log" 2>&1; then
    rm -rf "$into"
    mkdir -p "$into"
    mv "$work/wheel/include" "$into/"
    echo "$version" >"$into/version"
    installed+=("cuDNN's frontend") # configure again
  else
    echo "Building without cuDNN: PyPI's nvidia-cudnn-frontend $version could not be fetched: $(tail -n 1 "$work/log")"
  fi
  rm -rf "$work"
}

configure() {
  local ninja_file=build/$preset/build.ninja cuda=()
  if [[ $preset == release || $preset == dev ]]; then
    if [[ ${#targets[@]} -eq 0 ]]; then
      if grep -qs '^ASHLAR_CUDA:STRING=OFF$' "build/$preset/CMakeCache.txt"; then cuda=(-DASHLAR_CUDA=AUTO); fi
    elif [[ ! -e $ninja_file ]]; then
      cuda=(-DASHLAR_CUDA=OFF)
    fi
  fi
  [[ -e $ninja_file && $ninja_file -nt CMakePresets.json && ${#installed[@]} -eq 0 && ${#cuda[@]} -eq 0 ]] && return 0
  if command -v ccache >/dev/null; then export CMAKE_CXX_COMPILER_LAUNCHER=ccache; fi
  cmake --preset "$preset" "${cuda[@]}"
  touch "$ninja_file"
}

build() {
  export CCACHE_BASEDIR=$PWD # presets share what they compile alike
  local command=(cmake --build "build/$preset")
  if [[ ${#targets[@]} -gt 0 ]]; then command+=(--target "${targets[@]}"); fi
  if [[ -t 1 ]]; then
    "${command[@]}"
  else
    "${command[@]}" | sed -u -e '/^ninja: no work to do\.$/d' -e '/Re-checking globbed directories/d'
  fi
}

install_packages
fetch_cudnn_frontend
configure
build
