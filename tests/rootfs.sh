# Makes root file systems of images with Python programs, without a container engine. Sourced by the build.sh of an image,
# which says what goes in; needs Debian's python3 with pip, and ldd.
#
#   rootfs_begin NAME CACHE INPUT…   ends the script with the path where the same inputs were built before; sets $new
#   rootfs_python EXCLUDE…           Debian's Python and its standard library, less what matches
#   rootfs_end FOLDER…               the shared libraries that programs in these folders need, users, times; prints the path

python=/usr/bin/python3

rootfs_begin() {
    rootfs_name=$1
    mkdir -p "$2"
    cache=$(cd "$2" && pwd)
    shift 2
    root=$cache/$rootfs_name-$(cat "$here/../rootfs.sh" "$@" | sha256sum | cut -c1-16)
    # One at a time: the second finds what the first has made.
    exec 9>"$cache/.$rootfs_name.lock"
    flock 9
    if [ -d "$root" ]; then
        echo "$root"
        exit
    fi
    work=$(mktemp -d "$cache/.$rootfs_name.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    new=$work/root
    echo "tests/$rootfs_name: assembling $root" >&2
}

rootfs_python() {
    version=$($python -c 'import sys; print("python%d.%d" % sys.version_info[:2])')
    stdlib=$($python -Ic 'import sysconfig; print(sysconfig.get_path("stdlib"))')
    mkdir -p "$new/usr/bin" "$new/usr/lib" "$new/usr/lib64" "$new/app" "$new/etc" "$new/tmp" "$new$stdlib"
    # A merged /usr, as in Debian: the loader's and the libraries' paths are what the binaries were linked for.
    ln -s usr/lib "$new/lib"
    ln -s usr/lib64 "$new/lib64"
    ln -s usr/bin "$new/bin"
    cp -L "$python" "$new/usr/bin/$version"
    ln -s "$version" "$new/usr/bin/python3"
    # What no program in an image imports, and what this one does not.
    for pattern in __pycache__ 'config-*' ./test ./idlelib ./lib2to3 ./ensurepip ./distutils ./tkinter ./turtledemo ./venv \
        '*_test*' '_dbm*' "$@"; do
        printf '%s\n' "$pattern"
    done >"$work/exclude"
    tar -C "$stdlib" -cf - --exclude-from="$work/exclude" . | tar -C "$new$stdlib" -xf -
}

rootfs_end() {
    # `ldd` prints `name => path (address)`, and the loader as `path (address)`.
    find "$new/usr/bin" "$new$stdlib" "$@" -type f \( -perm -u+x -o -name '*.so*' \) -exec ldd {} + 2>/dev/null |
        grep -o '/[^ ]* (0x' | cut -d' ' -f1 | sort -u | while read -r library; do
        case $library in
            "$new"/*) continue ;;
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
}
