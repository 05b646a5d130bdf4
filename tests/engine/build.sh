#!/bin/sh
# Makes the root file system of an image with a real inference engine, without a container engine: Debian's Python, the
# shared libraries it needs, and llama.cpp's server from a wheel. Prints its path.
#
#   tests/engine/build.sh [CACHE]      # CACHE: ~/.cache/substratus
#
# Made once, as CACHE/engine-<hash of this folder>. Needs Debian's python3 with pip, ldd, and strip (binutils).
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${1:-$HOME/.cache/substratus}
python=/usr/bin/python3
mkdir -p "$cache"
cache=$(cd "$cache" && pwd)
key=$(cat "$here/build.sh" "$here/llama-server" "$here/requirements.txt" | sha256sum | cut -c1-16)
root=$cache/engine-$key

# One at a time: the second finds what the first has made.
exec 9>"$cache/.engine.lock"
flock 9
if [ -d "$root" ]; then
    echo "$root"
    exit
fi

work=$(mktemp -d "$cache/.engine.XXXXXX")
trap 'rm -rf "$work"' EXIT
new=$work/root
echo "tests/engine: assembling $root" >&2

version=$($python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
stdlib=$($python -Ic 'import sysconfig; print(sysconfig.get_path("stdlib"))')
mkdir -p "$new/usr/bin" "$new/usr/lib" "$new/app" "$new/etc" "$new/tmp"
chmod 1777 "$new/tmp"
# A merged /usr, as in Debian: the loader's and the libraries' paths are what the binaries were linked for.
mkdir -p "$new/usr/lib64"
ln -s usr/lib "$new/lib"
ln -s usr/lib64 "$new/lib64"
cp -L "$python" "$new/usr/bin/$version"
ln -s "$version" "$new/usr/bin/python3"

# The standard library less what a server never imports.
mkdir -p "$new$stdlib"
tar -C "$stdlib" -cf - --exclude=__pycache__ --exclude='config-*' --exclude=./test --exclude=./idlelib --exclude=./lib2to3 \
    --exclude=./ensurepip --exclude=./distutils --exclude=./tkinter --exclude=./turtledemo --exclude=./pydoc_data \
    --exclude=./unittest --exclude=./venv --exclude='*_test*' --exclude='*sqlite3*' --exclude='readline*' \
    --exclude='_curses*' --exclude='_ssl*' --exclude='_dbm*' --exclude='_hashlib*' . | tar -C "$new$stdlib" -xf -

$python -m pip download --quiet --no-deps --only-binary :all: --require-hashes -r "$here/requirements.txt" -d "$work" >&2
$python -m zipfile -e "$work"/xllamacpp-*.whl "$new/app/lib"
strip --strip-unneeded "$new"/app/lib/xllamacpp/*.so
cp "$here/llama-server" "$new/app/llama-server"
chmod 755 "$new/app/llama-server"

# `ldd` prints `name => path (address)`, and the loader as `path (address)`.
find "$new/usr/bin/$version" "$new$stdlib" "$new/app/lib" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null |
    grep -o '/[^ ]* (0x' | cut -d' ' -f1 | sort -u | while read -r library; do
    case $library in
        /usr/*) target=$new$library ;;
        *) target=$new/usr$library ;;
    esac
    mkdir -p "$(dirname "$target")"
    cp -L "$library" "$target"
done

printf 'root:x:0:0::/:/bin/false\nnobody:x:65534:65534::/:/bin/false\n' >"$new/etc/passwd"
printf 'root:x:0:\nnogroup:x:65534:\n' >"$new/etc/group"
# The same bytes whoever builds it, and readable for any user.
chmod -R u=rwX,go=rX "$new"
chmod 1777 "$new/tmp"
find "$new" -exec touch -h -d @0 {} +
mv "$new" "$root"
echo "$root"
