# SPDX-License-Identifier: Apache-2.0
"""Descriptions of pods: our own podfile, and what can be made into one.

document     the podfile's structure, which is also its JSON Schema
strict       unknown and misspelt keys, with a suggestion
convert      a podfile into the engine's specifications
load         a file of any known kind into a podfile
kubernetes   kind: Pod (the part that maps)
compose      a Docker compose file
generate     a podfile from images
"""
