# SPDX-License-Identifier: Apache-2.0
"""Images: from a registry or an archive to a read-only disk.

In the daemon:

manifests  the documents that describe images
blobs      content by digest, and what keeps it
layout     the names, in the index of an OCI layout
trust      whose images are taken
skopeo     moves images between registries and the layout
builtin    the busybox image that needs no registry
push       images to registries
save       images as an archive
load       archives as images, by bundle (what is in one) and changes (a Dockerfile's instructions)
describe   what is shown of an image
pull       one pull for all who ask for the same image
disk       image disks, each made once, cached by chain id
conversion starts the process that makes them
store      list, tag, remove, prune

In a process without rights, as what it reads is a stranger's:

worker     its beginning and its words
archive    compression, names in archives
guard      what is too much, seen as it comes by
entry, acl what the headers of one entry say
tree       layers merged into one file tree, with whiteouts applied
erofs      that tree as a file system
convert    all of it, from layers to a disk

limits is what both know.
"""
