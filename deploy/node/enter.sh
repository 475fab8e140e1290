#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# In the pod of the DaemonSet: the node is set up from what this image has, and the pod stays, so that it is counted.
# HOST is where the node's files are mounted; process 1 is the node's.
set -eu
HOST=${HOST:-/host}
mkdir -p "$HOST/opt/hypercontainer"
rm -rf "$HOST/opt/hypercontainer/payload"
cp -R /payload "$HOST/opt/hypercontainer/payload"
export CLASS="${CLASS:-containerd}" PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
nsenter --target 1 --mount -- sh /opt/hypercontainer/payload/deploy/node/node.sh install /opt/hypercontainer/payload
touch /installed
trap 'exit 0' TERM INT
while :; do
    sleep 3600 &
    wait $!
done
