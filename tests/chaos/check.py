# SPDX-License-Identifier: Apache-2.0
"""The model beside what hyperd says, and hyperd's records beside the world."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from .host import SLOW, Host
from .model import Box, Model


def agrees(host: Host, model: Model) -> None:
    """All is as the model has it, within `host.SLOW` seconds.

    :raise AssertionError: something is not, with a line for each.
    """
    _hold(lambda: _differences(host, model))
    for box in model.of("running", "exited"):
        _hold(lambda: _output(host, box))  # noqa: B023
    host.daemon.world.check(deadline=SLOW)
    host.ask("/version")


def _hold(wrong: Callable[[], list[str]]) -> None:
    """Until nothing is wrong any more."""
    end = time.monotonic() + SLOW
    while found := wrong():
        assert time.monotonic() < end, "\n  ".join(["not as it must be:", *found])
        time.sleep(0.1)


def _differences(host: Host, model: Model) -> list[str]:
    found = {c["name"]: c for c in host.ask("/containers?all=1")}
    wrong = [f"{name} is there" for name in found.keys() - model.boxes.keys()]
    wrong += [f"{name} is not there" for name in model.boxes.keys() - found.keys()]
    wrong += [w for name, c in found.items() if name in model.boxes for w in _states(c["state"], model.boxes[name])]
    wrong += _names("pods", [p["name"] for p in host.ask("/pods") if not p.get("implicit")], model.pods)
    wrong += _names("volumes", [v["volume"]["name"] for v in host.ask("/volumes")], list(model.volumes))
    networks = [n["network"]["name"] for n in host.ask("/networks") if n["network"]["name"].startswith("net")]
    return wrong + _names("networks", networks, model.networks)


def _states(state: dict[str, Any], box: Box) -> list[str]:
    said = f"{state['status']} ({state.get('exitCode', 0)}{': ' + state['error'] if state.get('error') else ''})"
    if state["status"] != box.state:
        return [f"{box.name} is {said} and must be {box.state} {sorted(box.codes)}"]
    if box.state == "exited" and state.get("exitCode", 0) not in box.codes:
        return [f"{box.name} is {said} and its status must be of {sorted(box.codes)}"]
    return []


def _names(what: str, found: list[str], known: list[str]) -> list[str]:
    return [] if sorted(found) == sorted(known) else [f"{what} are {sorted(found)} and must be {sorted(known)}"]


def _output(host: Host, box: Box) -> list[str]:
    said = host.ctl("logs", box.name)
    wrong = said.stderr or said.stdout.split() != box.output
    return [f"{box.name} said {said.stdout.split()} {said.stderr} and must have said {box.output}"] if wrong else []


def files(host: Host, model: Model, box: Box) -> None:
    """What a container that runs has written is there, though its machine was killed since."""
    done = host.ctl("exec", box.name, "cat", "/root/log")
    assert done.stdout.split() == [box.name] * box.starts, f"{box}: {done}"
    if box.volume:
        done = host.ctl("exec", box.name, "cat", "/data/log")
        assert done.stdout.split() == model.volumes[box.volume], f"{box}: {done}"
