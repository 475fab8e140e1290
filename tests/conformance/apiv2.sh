#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# One of podman's files of assertions (test/apiv2/*.at), with podman's own functions, on a daemon that is there.
# Usage: apiv2.sh DIRECTORY FILE. In the environment: PODMAN (what stands for it), PORT, IMAGE, WORKDIR, REGISTRY,
# CLOSED_REGISTRY.
# Each assertion is a line on descriptor 3: passed or failed, its name, and what was expected; separated by tabs.
#
# What is asked of podman's own API only makes the state that later assertions look at: it is asked of Docker's API
# instead, as far as that has the like, and nothing is counted of it.
TESTS_DIR=$1 file=$2
HOST=localhost LOG=$WORKDIR/log TMPDIR=$WORKDIR PODMAN_TEST_IMAGE_NAME=alpine_labels
export TMPDIR
testcounter_file=$WORKDIR/.count failures_file=$WORKDIR/.failures
echo 0 >"$testcounter_file"
echo 0 >"$failures_file"
source <(sed -n '/^# BEGIN infrastructure/,/^# END   infrastructure/p' "$TESTS_DIR/test-apiv2")
eval "podmans_$(declare -f t)"

_show_ok() {
    [ -n "$UNCOUNTED" ] && return
    local word=failed name
    [ "$1" = 1 ] && word=passed
    name=$(tr -d '\n' <<<"$2" | cat -vT)
    printf '%s\t%s\t%s\n' "$word" "${name#"${name%%[![:space:]]*}"}" "expected $3, is ${4:0:200}" | tr -d '\r' | head -n 1 >&3
}

die() { # a test that cannot go on: the rest of the file does
    _show_ok 0 "$*" "no error" "an error"
    return 1
}

like_docker() { # the path that Docker's API has for one of podman's
    local path=${1#/}
    path=${path#libpod/}
    case $path in
    volumes/json*) echo "volumes${path#volumes/json}" ;;
    networks/json*) echo "networks${path#networks/json}" ;;
    volumes/*/json) echo "${path%/json}" ;;
    networks/*/json) echo "${path%/json}" ;;
    *) echo "$path" ;;
    esac
}

t() {
    local method=$1 path=$2
    shift 2
    case $path in
    libpod/* | /libpod/*) UNCOUNTED=1 podmans_t "$method" "$(like_docker "$path")" "$@" ;;
    # What has happened up to now is said in another way.
    events*) podmans_t "$method" "${path/stream=false/until=$(date +%s)}" "$@" ;;
    *) podmans_t "$method" "$path" "$@" ;;
    esac
}

curl() { command curl -m 60 "$@"; }

podman() { $PODMAN "$@" >>"$WORKDIR/output.log" 2>&1; }
start_service() { :; }
stop_service() { :; }
start_registry() { # two run already: one for everybody, and one that asks who it is
    REGISTRY_PORT=${REGISTRY##*:} REGISTRY_USERNAME=user REGISTRY_PASSWORD=secret
    [ "$1" != htpasswd ] || REGISTRY_PORT=${CLOSED_REGISTRY##*:}
}
stop_registry() { :; }

cd "$WORKDIR" || exit 1
source "$TESTS_DIR/$file"
