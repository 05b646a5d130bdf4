#!/bin/sh
# Makes the root file system that images are built in, but for BuildKit itself: git, ssh, runc, a shell. Prints its path.
#
#   tests/buildkit/root.sh [CACHE]     # CACHE: ~/.cache/substratus
#
# Made once, as CACHE/buildkit-<hash of this file>. Needs what rootfs.sh needs, and Debian's git, openssh-client, runc, uidmap and
# busybox-static.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../rootfs.sh"

rootfs_begin buildkit "${1:-$HOME/.cache/substratus}" "$here/root.sh"
stdlib=/usr/bin
mkdir -p "$new/usr/bin" "$new/usr/lib/git-core" "$new/usr/lib64" "$new/etc" "$new/tmp" "$new/proc" "$new/sys" "$new/run" "$new/root"
# A merged /usr, as in Debian: the loader's and the libraries' paths are what the binaries were linked for.
ln -s usr/lib "$new/lib"
ln -s usr/lib64 "$new/lib64"
ln -s usr/bin "$new/bin"
cp -L /bin/busybox "$new/usr/bin/busybox"
busybox --list | while read -r name; do
    [ "$name" = busybox ] || ln -s busybox "$new/usr/bin/$name"
done
for program in git ssh newuidmap newgidmap; do
    cp -L "/usr/bin/$program" "$new/usr/bin/$program"
done
cp -L /usr/sbin/runc "$new/usr/bin/runc"
# Git finds the rest of itself in its own program.
for program in git-remote-http git-submodule git-sh-setup git-sh-i18n git-sh-i18n--envsubst; do
    cp -L "/usr/lib/git-core/$program" "$new/usr/lib/git-core/$program"
done
ln -s git-remote-http "$new/usr/lib/git-core/git-remote-https"
ln -s ../../bin/git "$new/usr/lib/git-core/git"
rootfs_end "$new/usr/lib/git-core"
