# SPDX-License-Identifier: Apache-2.0
"""Log-in by OpenID Connect: what an identity provider says of who somebody is (docs/adr/0020-log-in.md).

provider    a provider: its description, its keys, what it is asked
id_tokens   what it says, once its signature has been verified
pending     log-ins that have begun, of browsers and of devices
"""
