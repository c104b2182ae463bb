#!/usr/bin/env bash
# Compiles the Kotlin sources against the stubs and runs their tests on the JVM:
#
#     tools/setup_android.sh          # once
#     export/android/run_tests.sh [traces.json [folder of an export]]
set -euo pipefail
traces="$(realpath "${1:-$(dirname "$0")/traces.json}")"
export=()
[ $# -lt 2 ] || export=("$(realpath "$2")")
cd "$(dirname "$0")"

tools=../../.tools/android
kotlin="$tools/node_modules/kotlin-compiler/lib"
classes="$tools/classes"
libraries="$kotlin/kotlin-stdlib.jar:/usr/share/java/com.android.json.jar"

# Of two that start at once, such as two workers of pytest, one compiles and the other waits for it.
exec 9>"$tools/.lock"
flock 9
if [ ! -e "$classes/.compiled" ] || [ -n "$(find src test stubs run_tests.sh -newer "$classes/.compiled")" ]; then
  rm -rf "$classes"
  mkdir -p "$classes"
  find stubs -name '*.java' -print0 | xargs -0 javac -Xlint:all -Werror -d "$classes"
  find src test stubs -name '*.kt' -print0 |
    xargs -0 java -cp "$kotlin/*" org.jetbrains.kotlin.cli.jvm.K2JVMCompiler \
      -no-stdlib -no-reflect -jvm-target 11 -Werror -cp "$classes:$libraries" -d "$classes"
  touch "$classes/.compiled"
fi
flock --unlock 9
java -cp "$classes:$libraries" kerastesla.MainKt "$traces" test/manifest.json "${export[@]}"
