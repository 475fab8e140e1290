#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Binds directories and files of the host into one tree, then becomes a program
# that serves it. Run in a mount namespace of its own, so that the tree is seen
# by nobody else and goes when the program does.
#
#   share.sh TREE [ro|rw PATH]... -- PROGRAM ARGUMENT...
#
# The entries are called 0, 1, 2... in their order.
set -eu
tree=$1
shift
mount -t tmpfs -o mode=0755,size=1m share "$tree"
entry=0
while [ "$1" != -- ]; do
    mode=$1 path=$2 target=$tree/$entry
    shift 2
    if [ -d "$path" ]; then mkdir "$target"; else : >"$target"; fi
    mount --bind -- "$path" "$target"
    # In a user namespace the host's own restrictions may forbid it; there a file gives nobody rights.
    mount -o "remount,bind,$mode,nosuid,nodev" -- "$target" || [ "$mode" = rw ]
    entry=$((entry + 1))
done
shift
mount -o remount,bind,ro "$tree"
exec "$@"
