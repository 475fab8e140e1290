# SPDX-License-Identifier: Apache-2.0
"""A machine goes on under a newer hyperd; what its hyperstart cannot is refused with a sentence."""

from __future__ import annotations

from typing import Any

import pytest

from hypercontainer.errors import Unsupported
from hypercontainer.guest.agent import (
    EditFiles,
    Filters,
    Fork,
    Freeze,
    HoldVolumes,
    Hooks,
    MakeLayers,
    OnlyGroups,
    PidsOf,
    Relay,
    UpdateLimits,
    require,
)
from hypercontainer.guest.fake import FakeGuest
from hypercontainer.protocol.constants import Capability, Type

from .stage import Stage


@pytest.mark.parametrize(
    ("capabilities", "can"),
    [
        (None, {Freeze}),
        (Capability(0), set()),
        (Capability.LIMITS, {UpdateLimits}),
        (Capability.LAYER, {MakeLayers}),
        (Capability.RELAY, {Relay}),
        (Capability.FILES, {EditFiles}),
        (Capability.HOOKS, {Hooks}),
        (Capability.FILTER, {Filters}),
        (Capability.ONLY_GROUPS, {OnlyGroups}),
        (Capability.FORK, {Fork}),
        (Capability.PIDS_OF, {PidsOf}),
        (Capability.HOLD, {HoldVolumes}),
        (
            0xFFFF,
            {Fork, Freeze, Hooks, UpdateLimits, MakeLayers, Relay, EditFiles, Filters, OnlyGroups, PidsOf, HoldVolumes},
        ),
    ],
)
def test_what_hello_does_not_name_is_refused(act: Any, capabilities: Any, can: set[type]) -> None:
    """One that names nothing is of before there were names, and could freeze."""

    async def scenario(s: Stage) -> None:
        made = s._guest

        def guest(config: Any) -> FakeGuest:
            found = made(config)
            found.capabilities = capabilities
            return found

        s.host._guest = guest
        await s.run("a")
        agent = s.engine.containers.runtime(s.engine.registry.container("a")).agent
        assert agent.facets == can
        for facet in {
            Fork,
            Freeze,
            Hooks,
            UpdateLimits,
            MakeLayers,
            Relay,
            EditFiles,
            Filters,
            OnlyGroups,
            PidsOf,
        } - can:
            with pytest.raises(Unsupported, match="does not support .*: it may be older than hyperd"):
                require(agent, facet)
        if Freeze in can:
            await s.call(s.engine.containers.pause("a"))
            await s.call(s.engine.containers.unpause("a"))
            return
        with pytest.raises(Unsupported, match="does not support pausing a container"):
            await s.call(s.engine.containers.pause("a"))
        assert s.status("a") == "running"
        assert Type.CONTAINER_FREEZE not in s.guest(s.machine("a")).asked

    act(scenario)
