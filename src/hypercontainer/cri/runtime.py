# SPDX-License-Identifier: Apache-2.0
"""RuntimeService: what this runtime is, and whether it works."""

from __future__ import annotations

from typing import Any

from ..errors import HyperError
from . import api, views
from .call import Call
from .sandbox_request import HANDLERS, network_of

_KUBELET_API = "0.1.0"  # what kubelets ask for, whichever version they speak


async def version(c: Call) -> Any:
    """Of the protocol and of hyperd."""
    return api.VersionResponse(
        version=_KUBELET_API, runtime_name="hypercontainer", runtime_version=c.engine.version().version,
        runtime_api_version=c.version,
    )  # fmt: skip


async def status(c: Call) -> Any:
    """Ready when machines can be made; the network, when CNI's configuration is there, if that is asked for."""
    conditions = [await _runtime_ready(c), _network_ready(c)]
    handlers = [
        api.RuntimeHandler(name=name, features=api.RuntimeHandlerFeatures())
        for name, driver in HANDLERS.items()
        if not driver or any(d.name == driver for d in c.engine.drivers)
    ]
    features = api.RuntimeFeatures(supplemental_groups_policy=True)
    answer = api.StatusResponse(
        status=api.RuntimeStatus(conditions=conditions), runtime_handlers=handlers, features=features
    )
    if c.request.verbose:
        answer.info["hyperd"] = views.as_json(await c.engine.info())
    return answer


async def _runtime_ready(c: Call) -> Any:
    probe = await c.engine.drivers.default.probe()
    why = probe.trouble or ("" if c.engine.kernel else "there is no kernel for virtual machines")
    if not why:
        return api.RuntimeCondition(type="RuntimeReady", status=True)
    return api.RuntimeCondition(type="RuntimeReady", reason="NoVirtualMachines", message=f"{why}: see hyperctl doctor")


def _network_ready(c: Call) -> Any:
    try:
        network_of(c.settings)
    except HyperError as error:
        return api.RuntimeCondition(type="NetworkReady", reason="NoNetwork", message=str(error))
    return api.RuntimeCondition(type="NetworkReady", status=True)


async def runtime_config(c: Call) -> Any:
    """hyperd's control groups are its own; a kubelet whose driver is cgroupfs has the fewest demands."""
    return api.RuntimeConfigResponse(linux=api.LinuxRuntimeConfiguration(cgroup_driver=api.CGROUPFS))


async def update_runtime_config(c: Call) -> Any:
    """The range of addresses of the node's pods is for networks that choose by it; hyperd's has its own, CNI too."""
    return api.UpdateRuntimeConfigResponse()


METHODS = {
    "Version": version,
    "Status": status,
    "RuntimeConfig": runtime_config,
    "UpdateRuntimeConfig": update_runtime_config,
}
