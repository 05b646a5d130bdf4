#!/bin/sh
# Makes the tiny models: tiny.gguf, the same weights as a Hugging Face repository in hf/, and encoder.gguf. Prints their folder.
#
#   tests/model/build.sh [CACHE]       # CACHE: ~/.cache/substratus
#
# Made once, as CACHE/model-<hash of this folder and of the packages>. Needs what tests/python.sh installs, and calls it.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-$HOME/.cache/substratus}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
model=$cache/model-$(cat "$here/build.sh" "$here/make_tiny_gguf.py" "$here/make_tiny_encoder.py" "$here/../requirements.txt" | sha256sum | cut -c1-16)

exec 9>"$cache/.model.lock"
flock 9
if [ ! -d "$model" ]; then
    venv=$("$here/../python.sh" "$cache")
    work=$(mktemp -d "$cache/.model.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    "$venv/bin/python" -IB "$here/make_tiny_gguf.py" "$work/made" >&2
    "$venv/bin/python" -IB "$here/make_tiny_encoder.py" "$work/made/encoder.gguf" >&2
    mv "$work/made" "$model"
fi
echo "$model"
