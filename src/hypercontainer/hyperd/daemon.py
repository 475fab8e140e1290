# SPDX-License-Identifier: Apache-2.0
"""Building the daemon's objects and running them until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import logging
import os
import resource
import shutil
import signal
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from aiohttp import web

from .. import __version__
from ..api import app
from ..docker import app as docker_app
from ..engine import leftovers
from ..engine.backup.putting_back import check_whole
from ..engine.engine import Engine
from ..engine.factory.factory import FactorySettings
from ..engine.networks import NetworkSettings
from ..engine.paths import BootFiles, Paths
from ..engine.restore import restore
from ..engine.settings import Settings
from ..errors import Conflict, HyperError, NotFound, PermissionDenied
from ..guest import initramfs
from ..kernel.locate import Kernel, locate
from ..model import architectures
from ..serving.identity import Identity
from ..serving.listener import Listener, ListenLimits, server_options
from ..serving.logging_in import LoggingIn
from ..sys import deadlines, process, users
from ..sys.files import no_space
from . import quota_config
from .config import Config, default_run
from .cri import cri
from .drivers import build_drivers, build_groups
from .listening import Listening, Speaks, listening

log = logging.getLogger(__name__)
_CAP_NET_ADMIN = 12  # linux/capability.h


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """:raise Conflict: when another hyperd works on this root."""
    with open(path, "w") as f:
        try:
            fcntl.flock(f, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Conflict(f"another hyperd uses {path.parent}", hint="stop it, or choose another --root") from None
        yield


def make_directories(paths: Paths) -> None:
    os.umask(0o077)  # for all that we and our helpers make from here on
    try:
        paths.create()
    except PermissionError as error:
        raise PermissionDenied(f"cannot write to {error.filename}",
                               hint="run hyperd as root, or choose another --root and --run") from error  # fmt: skip
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_space(paths.root) from error
        raise


def _find_kernel(config: Config) -> Kernel | None:
    """None when there is none yet: the daemon runs all the same, `doctor` tells."""
    try:
        return locate(config.kernel)
    except NotFound:
        raise
    except HyperError as error:
        log.warning("%s", error)
        return None


def build_engine(config: Config, *, recover: bool = False) -> Engine:
    """With `recover` a database that is damaged or lost is made anew first.

    :raise PermissionDenied: when a directory cannot be made.
    :raise Conflict: accounts have the users that are configured.
    :raise Unavailable: when the database cannot be read.
    """
    if os.geteuid() == 0:
        users.use(*config.user_numbers)
    paths = Paths(config.root_path, config.run_path)
    kernel = _find_kernel(config)

    def boot(architecture: str) -> BootFiles:
        if architectures.is_foreign(architecture):
            init = initramfs.cached(paths.cache, architectures.MACHINES.get(architecture, architecture))
            return BootFiles(locate(architecture=architecture).path, init, config.boot_timeout)
        found = kernel or locate(config.kernel)
        return BootFiles(found.path, initramfs.cached(paths.cache), config.boot_timeout)

    drivers = build_drivers(config, paths, kernel)
    if recover:
        restore(paths, partial(leftovers.runs_in, paths, drivers))
    settings = Settings(
        paths=paths,
        scratch_size=config.scratch_bytes,
        sizes=quota_config.sizes(config.sizes),
        quotas=quota_config.quotas(config.quotas),
        log_size=config.log_bytes,
        log_files=config.log_max_files,
        log=config.log_options,
        boot_timeout=config.boot_timeout,
        insecure_registries=frozenset(config.insecure_registries),
        images=config.image_limits,
        volume_type=config.volume_type,
        virtiofs=config.virtiofs,
        kill_silent=config.unresponsive == "kill",
        factory=FactorySettings(config.factory, config.factory_bytes, config.pool_bytes),
        events=config.event_limits,
        metering=config.metering,
        cluster=config.cluster.ports() if config.cluster else None,
        audit=config.audit,
        trust=config.trust,
        trusts=config.trusts,
        builder=config.builder.settings(config.insecure_registries),
        egress_networks=config.opened_networks,
        fips=config.fips.settings(),
        docker_host=f"unix://{config.docker_path}" if config.docker else "",
        network=NetworkSettings(
            config.network or _default_network(),
            config.bridge,
            config.bridge_subnet,
            config.bridge_subnet6,
            config.user_network,
            config.rate_bounds,
        ),
    )
    return Engine(settings, drivers, kernel, boot, groups=build_groups(config, paths))


def _default_network() -> str:
    """Root's pods are in a network of this host, where it can be made; a user's have the hypervisor's own."""
    can = os.geteuid() == 0 and shutil.which("nft") and os.access("/dev/net/tun", os.W_OK) and _administers_network()
    return "bridge" if can else "user"


def _administers_network() -> bool:
    """CAP_NET_ADMIN, which root in a container may lack (capabilities(7))."""
    return process.has_capability(_CAP_NET_ADMIN)


async def serve(config: Config, ready_fd: int | None, *, recover: bool = False) -> None:
    """Run until SIGTERM or SIGINT (containers are stopped unless live_restore), or SIGHUP (they go on)."""
    # Secrets of pods are in our memory, and in that of QEMU. 1 byte: 0 does not keep a core from a program (core(5)).
    resource.setrlimit(resource.RLIMIT_CORE, (1, 1))
    # mkfs.ext4 lies where a user's PATH often does not lead.
    os.environ["PATH"] = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    paths = Paths(config.root_path, config.run_path)
    make_directories(paths)
    if not config.run:
        default_run()  # checked again, now that it is there
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(paths.root / "hyperd.lock"))
        check_whole(paths.root)
        sockets = stack.enter_context(listening(config))
        engine = build_engine(config, recover=recover)
        await engine.open()
        kubernetes = contextlib.AsyncExitStack()
        try:
            await kubernetes.enter_async_context(cri(config, engine))
            runners, listeners = await _answer(config, engine, sockets)
        except BaseException:
            await kubernetes.aclose()
            await engine.close(keep_running=True)
            raise
        log.info("hyperd %s listens on %s, root %s", __version__, ", ".join(s.name for s in sockets), paths.root)
        if ready_fd is not None:
            os.write(ready_fd, b"ready")
            os.close(ready_fd)
        # So that the first container does not wait for it.
        probe = asyncio.create_task(_look_at_host(engine))
        signals = _signals()
        received = await signals.get()
        log.info("%s: ending", received.name)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        keep_running = config.live_restore or received is signal.SIGHUP
        await asyncio.gather(*(x.close() for x in listeners), kubernetes.aclose())
        if not await _end(runners, engine, signals, keep_running=keep_running):
            for path in (config.socket_path, config.docker_path):
                path.unlink(missing_ok=True)
            if not keep_running:
                await engine.kill_machines()
            logging.shutdown()
            os._exit(1)  # whatever holds a thread


async def _answer(
    config: Config, engine: Engine, sockets: list[Listening]
) -> tuple[list[web.AppRunner], list[Listener]]:
    """Each API is there from now on."""
    oidc = config.oidc.configuration()
    provider = LoggingIn(oidc, engine.tenancy.logins) if oidc else None
    identity = Identity(engine.tokens, config.clients, engine.tenancy.entry, provider)
    limits = ListenLimits(config.connections_max, config.connections_per_peer)
    applications: dict[Speaks, web.Application] = {"rest": app.build(engine, identity)}
    if config.docker:
        applications["docker"] = docker_app.build(engine, identity)
    if config.console_listen:
        from ..console import app as console_app  # for who has one: its templates take 40 ms

        applications["console"] = console_app.build(engine, identity)
    servers, runners = {}, []
    for speaks, application in applications.items():
        runner = web.AppRunner(
            application, handler_cancellation=True, access_log=None, shutdown_timeout=1, **server_options(limits)
        )
        await runner.setup()
        assert runner.server is not None
        servers[speaks] = runner.server
        runners.append(runner)
    listeners = [Listener(s.sock, servers[s.speaks], limits, s.tls) for s in sockets]
    for listener in listeners:
        listener.start()
    return runners, listeners


async def _end(
    runners: list[web.AppRunner], engine: Engine, signals: asyncio.Queue[signal.Signals], *, keep_running: bool
) -> bool:
    """False when it took too long, or another signal came."""

    async def close() -> None:
        await asyncio.gather(*(r.cleanup() for r in runners))
        await engine.close(keep_running=keep_running)

    limit = deadlines.STOP + (0 if keep_running else engine.longest_grace())
    ending, again = asyncio.create_task(close()), asyncio.create_task(signals.get())
    await asyncio.wait({ending, again}, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
    if ending.done():
        again.cancel()
        await ending
        return True
    why = f"{again.result().name} again" if again.done() else f"it has not ended within {limit:g} s"
    log.warning("%s: ending at once%s", why, "" if keep_running else ", with all virtual machines")
    return False


async def _look_at_host(engine: Engine) -> None:
    """Measure what an emulated guest has to be told, and try KVM: again, if an earlier daemon found that it fails."""
    probe = await engine.drivers.default.probe()
    if probe.accelerator == "tcg":
        await asyncio.to_thread(initramfs.tsc_khz)
        await engine.try_again()


def _signals() -> asyncio.Queue[signal.Signals]:
    """Those that end us, as they come."""
    received: asyncio.Queue[signal.Signals] = asyncio.Queue()
    for sig in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(sig, received.put_nowait, sig)
    return received
