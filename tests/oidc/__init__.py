# SPDX-License-Identifier: Apache-2.0
"""Log-in by a real provider of OpenID Connect: `make test-oidc`."""
