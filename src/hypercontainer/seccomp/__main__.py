# SPDX-License-Identifier: Apache-2.0
"""python -m hypercontainer.seccomp ARCHITECTURE CAPABILITIES"""

from .apart import main

main()
