# SPDX-License-Identifier: Apache-2.0
"""EROFS, the read-only file system of image disks: written, never read, and nothing in it compressed.

layout     how its parts look on the disk
plan       where each part of a tree goes
writer     puts them there

The format is the kernel's: fs/erofs/erofs_fs.h, Documentation/filesystems/erofs.rst, and in more words
https://erofs.docs.kernel.org/en/latest/core_ondisk.html. What is used of it, Linux has read since 5.15.
"""
