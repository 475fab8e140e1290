# SPDX-License-Identifier: Apache-2.0
"""The routes as an OpenAPI 3.1 document (https://spec.openapis.org/oas/v3.1.0)."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from .. import API_VERSION, __version__
from .router import FRAMES, STATUS, ErrorBody, Route

_PARAMETER = re.compile(r"\{(\w+)\}")
# What may come of any operation; 500 is a defect, or a guest's, and is told by the default only.
_FAILURES = sorted({*map(str, STATUS.values()), "405", "408", "413"} - {"500"})
_REFS = "#/components/schemas/{name}"


def document(routes: list[Route]) -> dict[str, Any]:
    """Every route with its parameters, body and answers."""
    types = [t for r in routes for t in (r.body, r.result) if t is not None] + [ErrorBody]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REFS)
    schema_of = {id(t): s for t, s in zip(types, schemas, strict=True)}
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        operation = paths.setdefault(f"/{API_VERSION}{route.path}", {})
        operation[route.method.lower()] = _operation(route, schema_of)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HyperContainer",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "see `hyperctl token create`"},
                "certificate": {"type": "mutualTLS", "description": "a client's certificate"},
            },
        },
        "security": [{}, {"token": []}, {"certificate": []}],  # {}: a user of the host, by the unix socket
    }


def _operation(route: Route, schema_of: dict[int, dict[str, Any]]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": n, "in": "path", "required": True, "schema": {"type": "string"}}
        for n in _PARAMETER.findall(route.path)
    ]
    parameters += [
        {"name": n, "in": "query", "description": d, "schema": {"type": "string"}} for n, d in route.query.items()
    ]
    success: dict[str, Any] = {"description": "done"}
    status = str(route.status)
    if route.stream == FRAMES:
        status, success = "101", {"description": "the connection carries frames in both directions"}
    elif route.stream:
        success["content"] = {route.stream: {}}
    elif route.result is not None:
        success["content"] = {"application/json": {"schema": schema_of[id(route.result)]}}
    else:
        status = "204"
    error = {
        "description": "what failed, and what to do",
        "content": {"application/json": {"schema": schema_of[id(ErrorBody)]}},
    }
    operation: dict[str, Any] = {
        "summary": route.summary,
        "description": "Takes no scope: who logs in is nobody yet."
        if route.everybody
        else f"Takes the scope `{route.needs}`.",
        "operationId": f"{route.method.lower()}{re.sub(r'[^a-zA-Z]+', '_', route.path)}",
        "parameters": parameters,
        "responses": {status: success, **dict.fromkeys(_FAILURES, error), "default": error},
    }
    if route.body is not None:
        operation["requestBody"] = {
            "required": True,
            "content": {"application/json": {"schema": schema_of[id(route.body)]}},
        }
    return operation
