# SPDX-License-Identifier: Apache-2.0
"""Images are built by Debian's dockerd, in a virtual machine that is there while somebody builds.

machine.py   the builder: a container of the daemon's own, started at need, kept for some minutes, given up when broken
relay.py     byte streams to its dockerd, through the guest's agent
dockerd.py   what hyperd asks of that dockerd
transfer.py  images in and out
image.py     the builder's own image
names.py     which images a build begins with, as its Dockerfile names them
passing.py   what is read of a build as it passes by
through.py   connections of clients that speak with BuildKit themselves
solved.py    which images BuildKit tells these that it has made
builds.py    what front ends ask: a build, whose images are in our store when it has ended
"""
