# SPDX-License-Identifier: Apache-2.0
"""Docker's Engine API in front of the engine: what `docker`, compose and their libraries speak.

Reference: https://docs.docker.com/reference/api/engine/ (names of routes, fields and their defaults).

    app          the application: versions, who asks, errors
    router       decorators that make functions operations, and what an operation works with
    faults       errors as Docker tells them
    the rest     operations, a module for each group of them; how objects of the engine look to Docker's clients
                 is in modules beside these (`…_view`)
"""
