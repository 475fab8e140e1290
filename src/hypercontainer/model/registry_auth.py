# SPDX-License-Identifier: Apache-2.0
"""A registry's credentials as they are sent to hyperd: Docker's X-Registry-Auth header, base64 of a JSON document."""

from __future__ import annotations

import base64
import json


def registry_auth(username: str, password: str) -> str:
    """The header's value (https://docs.docker.com/reference/api/engine/#section/Authentication)."""
    document = json.dumps({"username": username, "password": password})
    return base64.urlsafe_b64encode(document.encode()).decode()
