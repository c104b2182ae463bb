#!/usr/bin/env bash
# What export/android and its test need, on Debian: a JDK, Android's org.json for the JVM, and the
# Kotlin compiler below .tools/android.
set -euo pipefail
cd "$(dirname "$0")/.."

kotlin=2.4.20

packages=()
command -v javac >/dev/null || packages+=(openjdk-17-jdk-headless)
[ -f /usr/share/java/com.android.json.jar ] || packages+=(libandroid-json-java)
command -v npm >/dev/null || packages+=(npm)
if [ ${#packages[@]} -gt 0 ]; then
  root=()
  [ "$(id -u)" -eq 0 ] || root=(sudo)
  "${root[@]}" apt-get update -q
  "${root[@]}" env DEBIAN_FRONTEND=noninteractive \
    apt-get install -q -y --no-install-recommends "${packages[@]}"
fi

# Its own folder: npm removes what it did not install from the one it works in.
mkdir -p .tools/android
npm install --prefix .tools/android --no-save --ignore-scripts --no-audit --no-fund \
  --loglevel=error "kotlin-compiler@$kotlin"

javac -version
echo "Kotlin $kotlin in .tools/android/node_modules/kotlin-compiler"
