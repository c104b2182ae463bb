#!/usr/bin/env bash
# Runtimes that phones still carry, and a reader of standard metadata, for tests/tflite: each in a
# virtual environment of its own below .tools/runtimes, since they want other packages than the
# project. The newest LiteRT is the one that the project itself runs on.
set -euo pipefail
cd "$(dirname "$0")/.."

# The last wheels of the oldest two are for Python 3.11, the Python of Debian 12.
find_python() {
  local name
  for name in ${PYTHON:-python3.11 python3.10 python3.9 python3}; do
    if "$name" -c 'import ensurepip, sys, venv; sys.exit(not (3, 9) <= sys.version_info < (3, 12))' \
      2>/dev/null; then
      echo "$name"
      return
    fi
  done
  echo "The old runtimes need Python 3.9 to 3.11 with venv (Debian: python3-venv). Name one with:" \
    "PYTHON=python3.11 $0. Received: ${PYTHON:-none among python3.11, .10, .9 and python3}" >&2
  exit 1
}

# make_environment NAME PACKAGE..: nothing else is installed, so every version is pinned here.
make_environment() {
  local folder=.tools/runtimes/$1
  shift
  if [ "$(cat "$folder/installed.txt" 2>/dev/null)" != "$*" ]; then
    rm -rf "$folder"
    "$python" -m venv "$folder"
    "$folder/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps "$@"
    echo "$*" >"$folder/installed.txt"
  fi
  echo "$folder: $*"
}

python=$(find_python)

packages=()
# tflite-support loads it.
[[ $(/sbin/ldconfig -p) == *libusb-1.0.so.0* ]] || packages+=(libusb-1.0-0)
if [ ${#packages[@]} -gt 0 ]; then
  root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  "${root[@]}" apt-get update -q
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${packages[@]}"
fi

make_environment tflite-runtime-2.14.0 tflite-runtime==2.14.0 numpy==1.26.4
make_environment ai-edge-litert-1.0.1 ai-edge-litert==1.0.1 numpy==1.26.4
make_environment tflite-support-0.4.4 tflite-support==0.4.4 numpy==1.26.4 flatbuffers==24.3.25 \
  protobuf==3.20.3 absl-py==2.1.0
