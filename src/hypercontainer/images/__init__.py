# SPDX-License-Identifier: Apache-2.0
"""Images: from a registry or an archive to a read-only disk.

skopeo     moves images into the store's OCI layout
layout     the layout on disk: blobs, index, manifests
tree       layers merged into one file tree, with whiteouts applied
tarstream  that tree as one tar stream
disk       the stream as a squashfs image, cached by chain id
builtin    the busybox image that needs no registry
store      pull, list, tag, remove, prune
"""
