#!/bin/sh
# Makes the Python environment of the plain importers that `make bench SECTION=datasets` compares with. Prints its path.
#
#   tests/bench-python.sh [CACHE]
set -eu
here=$(cd "$(dirname "$0")" && pwd)
exec "$here/python.sh" "${1:-$HOME/.cache/substratus}" "$here/bench-requirements.txt"
