# SPDX-License-Identifier: Apache-2.0
"""Xen's tools: each call has an end, and what went wrong is in the error.

They talk to the hypervisor and to xenstored, which only root's processes may, outside of any jail.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from ...errors import HyperError, NotFound, Unavailable
from ...jail import helpers
from ...jail.jail import Order
from ...jail.plain import PlainJail
from ...sys import deadlines, tasks
from ..facets import Needs

log = logging.getLogger(__name__)
_asking: set[asyncio.Future[str]] = set()  # what goes on though nobody waits for it any more
_CAPABILITIES = Path("/proc/xen/capabilities")  # of xenfs; a dom0's has "control_d"
_AGAIN, _OWED = 1.0, 120  # seconds between attempts to end a domain that is to be ended, and how many there are
_LOGS = Path("/var/log/xen")
_CONNECTED = "4"  # XenbusStateConnected in xen/include/public/io/xenbus.h
_LOOK = 0.05  # seconds between looks at that
_GONE = "is an invalid domain identifier"  # xl_utils.c and xl_vmcontrol.c, find_domain
_NO_PATH = "No such file or directory"  # of xenstore-ls
FOOTPRINT = Needs(memory=192 << 20, tasks=64)  # of a domain's QEMU and xl, in dom0: the guest's is the hypervisor's
HINT = "install Debian's xen-system-amd64, or what your system calls it, and boot its hypervisor"


def environment() -> dict[str, str]:
    """What the tools need of ours."""
    return {"PATH": os.environ.get("PATH", os.defpath)}


def binary(name: str) -> Path:
    """:raise Unavailable: it is not installed."""
    if found := shutil.which(name):
        return Path(found)
    raise Unavailable(f"{name} is not in the PATH", hint=HINT)


def is_dom0() -> bool:
    """Whether this host is Xen's, and may make domains."""
    with contextlib.suppress(OSError):
        return "control_d" in _CAPABILITIES.read_text()
    return False


def hindrance(*programs: str) -> tuple[str, str]:
    """Why hyperd can make no domains on this host, by these programs, and what to do; "" when it can."""
    for program in programs:
        if not shutil.which(program):
            return f"{program} is not in the PATH", HINT
    if not is_dom0():
        return "this host is not the dom0 of a Xen hypervisor", HINT
    if os.geteuid() != 0:
        return "domains are made by root", "run hyperd as root"
    return "", ""


async def ask(name: str, *args: str, timeout: float = deadlines.MONITOR) -> str:
    """What a tool prints.

    :raise NotFound: there is no such domain.
    :raise Unavailable: it fails, with its own words, or has not answered in so many seconds.
    """
    order = Order(args=(str(binary(name)), *args), user=os.geteuid(), output=-1, environment=environment())
    try:
        done = await tasks.within(helpers.run(order, by=PlainJail()), timeout)
    except TimeoutError as error:
        raise Unavailable(f"`{name} {args[0]}` did not end within {timeout:g} s") from error
    if done.status == 0:
        return done.stdout
    said = complaint(done.stderr or done.stdout) or f"it ended with status {done.status}"
    if _GONE in done.stderr:
        raise NotFound(f"there is no such domain: {said}")
    raise Unavailable(f"`{name} {args[0]}` failed: {said}")


def complaint(text: str) -> str:
    """Of what a tool wrote, what says why it failed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line.lower()]
    return "; ".join((errors or lines)[-3:])


async def write(values: Mapping[str, str | int]) -> None:
    """Set paths of xenstore. :raise Unavailable: that fails."""
    await ask("xenstore-write", *(str(part) for pair in values.items() for part in pair))


async def listed(path: str) -> dict[str, str]:
    """What xenstore has below a path, by whole paths; nothing where there is no such path.

    :raise Unavailable: that fails.
    """
    try:
        text = await ask("xenstore-ls", "-f", path)
    except Unavailable as error:
        if _NO_PATH in error.message:
            return {}
        raise
    pairs = (line.split(" = ", 1) for line in text.splitlines() if " = " in line)
    return {key: value.removeprefix('"').removesuffix('"') for key, value in pairs}


async def taken(domid: int, kind: str, number: int) -> None:
    """Return when the guest's driver has connected to a device that was added; then one of that name that went before
    has gone there, too.

    :raise Unavailable: it does not.
    """
    clock = asyncio.get_running_loop().time
    end = clock() + deadlines.PLUG
    while (await ask("xenstore-read", f"/local/domain/{domid}/device/{kind}/{number}/state")).strip() != _CONNECTED:
        if clock() > end:
            raise Unavailable(f"the guest takes no device that is added to it within {deadlines.PLUG:g} s")
        await asyncio.sleep(_LOOK)


async def terminal(domid: int) -> Path:
    """Where xenconsoled has what the domain's kernel writes. :raise Unavailable: it has no such console."""
    return Path((await ask("xenstore-read", f"/local/domain/{domid}/console/tty")).strip())


async def destroy(domain: str, timeout: float) -> str:
    """End a domain at once and free what it has; why not, "" when it is gone. Idempotent.

    An xl that takes longer goes on: one that is killed in the midst leaves half of a domain.
    """
    asking = asyncio.ensure_future(_destroyed(domain))
    _asking.add(asking)
    asking.add_done_callback(_asking.discard)
    if (await asyncio.wait({asking}, timeout=timeout))[0]:
        return asking.result()
    return f"`xl destroy` did not end within {timeout:g} s"


async def _destroyed(domain: str) -> str:
    try:
        await ask("xl", "destroy", domain, timeout=deadlines.WORK)
    except NotFound:
        return ""
    except (HyperError, OSError) as error:
        return str(error)
    return ""


async def destroy_later(domain: str) -> None:
    """End a domain that could not be ended in time, once xl answers again."""
    for _ in range(_OWED):
        await asyncio.sleep(_AGAIN)
        if not (why := await destroy(domain, deadlines.WORK)):
            return
    log.error("the domain %s is left: %s", domain, why)


def drop_log(domain: str) -> None:
    """That of a domain's QEMU, which libxl leaves. Idempotent."""
    with contextlib.suppress(OSError):
        (_LOGS / f"qemu-dm-{domain}.log").unlink()
