# SPDX-License-Identifier: Apache-2.0
"""The same client beside a daemon of Docker's: `make docker-compare`."""
