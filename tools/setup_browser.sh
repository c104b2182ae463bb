#!/usr/bin/env bash
# What the page of export/web and its test need, on Debian: a headless Chromium, and LiteRT.js below
# .tools/web.
set -euo pipefail
cd "$(dirname "$0")/.."

litertjs=2.5.3

packages=()
command -v chromium-headless-shell >/dev/null || packages+=(chromium-headless-shell)
command -v npm >/dev/null || packages+=(npm)
if [ ${#packages[@]} -gt 0 ]; then
  root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  "${root[@]}" apt-get update -q
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${packages[@]}"
fi

mkdir -p .tools/web
npm install --prefix .tools/web --no-save --ignore-scripts --no-audit --no-fund \
  --loglevel=error "@litertjs/core@$litertjs" "@litertjs/wasm-utils@$litertjs"

chromium-headless-shell --version
echo "LiteRT.js $litertjs in .tools/web/node_modules"
