#!/usr/bin/env bash
# The quick tests on TensorFlow with other versions than the locked ones, in an
# environment of its own, which takes about 4 GB below out/ and is deleted at the end.
#     tools/other_versions.sh python3.11 lowest    the lower bounds of pyproject.toml
#     tools/other_versions.sh python3.13 newest    the newest packages that pip finds
set -euo pipefail
cd "$(dirname "$0")/.."

python=$1 versions=$2
if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
  echo "$python is not installed here with venv: nothing was tested on it." >&2
  exit 1
fi

# Without PyTorch and JAX, which the quick tests do not need.
requirements=(build hypothesis pytest pytest-xdist PyYAML setuptools)
if [ "$versions" = lowest ]; then
  # "keras>=3.15" becomes "keras==3.15".
  lowest=$(
    "$python" - <<'LOWEST'
import tomllib

with open("pyproject.toml", "rb") as file:
    needed = tomllib.load(file)["project"]["dependencies"]
print("\n".join(text.replace(">=", "==") for text in needed if ">=" in text))
LOWEST
  )
  mapfile -t -O ${#requirements[@]} requirements <<<"$lowest"
fi

mkdir -p out
folder=$(mktemp -d out/other_versions.XXXXXX)
trap 'rm -rf "$folder"' EXIT
"$python" -m venv "$folder"
"$folder/bin/python" -m pip install --quiet --disable-pip-version-check "${requirements[@]}" \
  --editable ".[examples]"
"$folder/bin/python" --version
"$folder/bin/python" -m pip list --disable-pip-version-check |
  grep -E '^(ai-edge-litert|keras|numpy|tensorflow) '
KERAS_BACKEND=tensorflow TF_CPP_MIN_LOG_LEVEL=3 "$folder/bin/python" -m pytest \
  --numprocesses=2 --dist=worksteal -m "not slow" --doctest-modules keras_tesla tests
