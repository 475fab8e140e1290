# SPDX-License-Identifier: Apache-2.0
"""A server for programs that were written for E2B's sandboxes; the modules, lowest first:

    connect     Connect's protocol, in which their clients speak with what E2B has in a sandbox
    bodies      what requests carry
    terms       what a sandbox was asked for with, and how it is told of
    commands    commands that run, and who reads their output
    templates, starting
                what clients have built, and what its sandboxes begin with
    copying, uploads, steps, builds
                how it is built
    book        the sandboxes, and when their time is over
    process, filesystem, files, volumes, building, control
                the services
    server      all of them, behind one address

Routes and messages are those that version 2 of the package `e2b` asks for; docs/sdk.md lists them.
"""
