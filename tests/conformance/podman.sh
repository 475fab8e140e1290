#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What podman's tests call podman for, by Docker's client. In the environment: ALPINE, the image that they call alpine.
while [[ $1 == --* ]]; do
    [ "$1" = --root ] && shift
    shift
done
everything=$(printf ' %s ' "$*")
verb=$1
shift
case "$verb $1" in
"image build" | "container rm" | "container stop") verb=$1 && shift ;;
"container exists") exec docker inspect --type container "$2" ;;
esac
words=()
for word; do
    case $word in
    --replace) ;;
    '['*']') words+=("$(tr -d '[]"' <<<"$word")") ;;
    alpine) words+=("$ALPINE") ;;
    *) words+=("$word") ;;
    esac
done
all_of() { # COMMAND LIST...: it, of all that are listed
    local names
    names=$("${@:2}")
    [ -z "$names" ] || exec docker $1 $names
    exit 0
}
case $verb in
system)
    [ "$1" = service ] && exec sleep 100000
    exit 125
    ;;
pod) exit 0 ;;
manifest | init | generate)
    echo "podman $verb is not here" >&2
    exit 125
    ;;
rm) [[ $everything != *" -a "* && $everything != *" -fa "* && $# -gt 0 && $everything != *" --all "* ]] || all_of "rm -f" docker ps -aq ;;
rmi) [[ $everything != *" -a "* ]] || all_of "rmi -f" docker images -q ;;
untag) verb=rmi ;;
build) exec docker build -q "${words[@]}" ;;
pull)
    for name in "${words[@]}"; do
        [[ $name == -* ]] || docker pull -q "$name" || exit
    done
    exit
    ;;
esac
exec docker "$verb" "${words[@]}"
