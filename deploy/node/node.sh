#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Sets a node up with HyperContainer, or takes that away again. It is run on the node, as root:
#   node.sh install DIRECTORY   of wheels: hypercontainer's, all that it needs, and pip
#   node.sh remove
# DIRECTORY/deploy has what this script lies beside. CLASS=cri (or `containerd`, the default: what the kubelet asks
# stays, and gets a runtime class) says whether the kubelet is to ask hyperd itself. All of it can be done again.
# Nothing is removed while containers run.
set -eu

PLACE=/opt/hypercontainer
BIN=/usr/local/bin
UNIT=/etc/systemd/system/hyperd.service
CONFIG=/etc/hyper/hyperd.toml
CONTAINERD=/etc/containerd/config.toml
CRIO_PLACE=/etc/crio
CRIO=$CRIO_PLACE/crio.conf.d/10-hyper.conf
SOCKET=/run/hyper/hyper.sock
BEGIN="# begin: hypercontainer's runtime class"
END="# end: hypercontainer's runtime class"

die() {
    echo "node.sh: $*" >&2
    exit 1
}

systemd() {
    if [ -d /run/systemd/system ]; then
        systemctl "$@"
    else
        echo "node.sh: no systemd runs here: not done: systemctl $*"
    fi
}

# Without our part, which stands between two lines.
without() {
    awk -v begin="$BEGIN" -v end="$END" '$0 == begin {ours = 1} !ours {print} $0 == end {ours = 0}' "$1"
}

# One that is not changed is not written, and its daemon not started anew. It keeps its owner and mode.
put() {
    if ! cmp -s "$1" "$2"; then
        mkdir -p "$(dirname "$2")"
        rm -f "$2.new"
        [ ! -f "$2" ] || cp -p "$2" "$2.new"
        cat "$1" >"$2.new"
        mv "$2.new" "$2"
        return 0
    fi
    return 1
}

programs() {
    python=$(command -v python3) || die "there is no python3: HyperContainer needs 3.11 or newer"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        die "$python is older than 3.11, which HyperContainer needs"
    [ -x "$PLACE/bin/python" ] || "$python" -m venv --without-pip "$PLACE" ||
        die "$python makes no virtual environments"
    for pip in "$1"/pip-*.whl; do
        "$PLACE/bin/python" "$pip/pip" install --quiet --disable-pip-version-check --no-cache-dir --no-index \
            --root-user-action=ignore --find-links "$1" --upgrade hypercontainer ||
            die "the wheels in $1 do not fit $python"
    done
    mkdir -p "$BIN"
    for name in hyperd hyperctl hyper-runtime; do
        ln -sf "$PLACE/bin/$name" "$BIN/$name"
    done
}

# The version, by the directory that pip keeps of it.
installed() {
    ls -d "$PLACE"/lib/python3*/site-packages/hypercontainer-*.dist-info 2>/dev/null || true
}

# Machines go on meanwhile, where hyperd is told so; else it is not for us to end them.
renew() {
    if grep -Eq '^live_restore *= *true' "$CONFIG"; then
        systemd try-restart hyperd
    else
        echo "node.sh: the new hyperd runs once it is restarted, which ends what runs here: $CONFIG has no live_restore"
    fi
}

# Before anything is done: that there is what the runtime class goes into.
check_runtimes() {
    if [ -f "$CONTAINERD" ]; then
        grep -Eq '^version *= *2([^0-9]|$)' "$CONTAINERD" ||
            die "$CONTAINERD is not of version 2, which containerd/hyper.toml is for"
    elif [ ! -d "$CRIO_PLACE" ]; then
        die "there is neither $CONTAINERD (\`containerd config default\` prints one) nor $CRIO_PLACE;" \
            "CLASS=cri is for a kubelet that asks hyperd"
    fi
}

# The runtime class of what the kubelet asks.
runtime_class() {
    if [ -d "$CRIO_PLACE" ]; then
        put "$1/crio/10-hyper.conf" "$CRIO" && systemd restart crio
    fi
    [ -f "$CONTAINERD" ] || return 0
    new=$(mktemp)
    { without "$CONTAINERD"; echo "$BEGIN"; cat "$1/containerd/hyper.toml"; echo "$END"; } >"$new"
    put "$new" "$CONTAINERD" && systemd restart containerd
    rm -f "$new"
}

install() {
    [ -d "${1:-}/deploy" ] || die "install needs a directory with wheels and deploy/"
    [ "${CLASS:-containerd}" = cri ] || check_runtimes
    old=$(installed)
    programs "$1"
    mkdir -p "$(dirname "$CONFIG")"
    if [ "${CLASS:-containerd}" = cri ]; then
        [ -f "$CONFIG" ] || cp "$1/deploy/systemd/hyperd.toml" "$CONFIG"
    else
        [ -f "$CONFIG" ] || echo "live_restore = true" >"$CONFIG"
        runtime_class "$1/deploy"
    fi
    if put "$1/deploy/systemd/hyperd.service" "$UNIT"; then
        systemd daemon-reload
    fi
    systemd enable --now hyperd
    [ -z "$old" ] || [ "$old" = "$(installed)" ] || renew
    echo "node.sh: installed in $PLACE; \`hyperctl doctor\` tells what this node can do"
}

# Machines outlive hyperd, and without it nobody could end them.
check_empty() {
    [ -S "$SOCKET" ] && [ -x "$PLACE/bin/hyperctl" ] || return 0
    running=$(HYPER_HOST="$SOCKET" "$PLACE/bin/hyperctl" ps -q) || die "hyperd does not tell what runs here: start it"
    [ -z "$running" ] || die "containers run here: drain the node, or end them (hyperctl ps), first"
}

remove() {
    check_empty
    if [ -f "$UNIT" ]; then
        systemd disable --now hyperd
        rm "$UNIT"
        systemd daemon-reload
    fi
    for name in hyperd hyperctl hyper-runtime; do
        [ "$(readlink "$BIN/$name" || true)" != "$PLACE/bin/$name" ] || rm "$BIN/$name"
    done
    if [ -f "$CRIO" ]; then
        rm "$CRIO"
        systemd restart crio
    fi
    if [ -f "$CONTAINERD" ]; then
        old=$(mktemp)
        without "$CONTAINERD" >"$old"
        put "$old" "$CONTAINERD" && systemd restart containerd
        rm -f "$old"
    fi
    rm -rf "$PLACE"
    echo "node.sh: removed; $CONFIG and /var/lib/hyper are kept"
}

case "${1:-}" in
install) install "${2:-}" ;;
remove) remove ;;
*) die "say install DIRECTORY, or remove" ;;
esac
