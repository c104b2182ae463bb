#!/usr/bin/env bash
# What `make bazel` needs, on Debian: Bazel 4.2.3, and buildifier below .tools/bazel.
# Its name keeps it from .ci/run's loop over tools/setup_*.sh, the optional tools of `make test`.
set -euo pipefail
cd "$(dirname "$0")/.."

buildifier=8.2.1

packages=()
command -v bazel >/dev/null || packages+=(bazel-bootstrap)
command -v npm >/dev/null || packages+=(npm)
if [ ${#packages[@]} -gt 0 ]; then
  root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  "${root[@]}" apt-get update -q
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${packages[@]}"
fi

mkdir -p .tools/bazel
npm install --prefix .tools/bazel --no-save --ignore-scripts --no-audit --no-fund \
  --loglevel=error "@bazel/buildifier@$buildifier"

bazel --version  # Debian's says "no_version"
echo "buildifier $buildifier in .tools/bazel/node_modules"
