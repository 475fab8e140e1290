# SPDX-License-Identifier: Apache-2.0
"""Pods in networks that CNI plugins make (https://www.cni.dev/docs/spec/, versions 0.3.1 to 1.0.0).

The plugins build what they would for a container: an interface in a network
namespace. There a tap takes its place: everything that arrives at one is
redirected to the other, and the guest has the interface's addresses.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import NotFound, Unavailable
from ..jail import helpers
from ..model.network import CniState
from ..model.specs import PortMapping
from ..sys import tasks
from ..sys.process import run
from .plugin import order
from .tap import create_tap

CONFIG = Path("/etc/cni/net.d")
PLUGINS = ("/opt/cni/bin", "/usr/lib/cni", "/usr/libexec/cni")
_NAMESPACES = Path("/run/netns")
_INTERFACE, _TAP = "eth0", "tap0"
_CLONE_NEWNET = 0x40000000
_EVERYWHERE = ("0.0.0.0/0", "::/0")
NOTHING: Mapping[str, str] = {}


def find_network(name: str, directory: Path = CONFIG) -> dict[str, Any]:
    """The list of plugins of that name.

    :raise NotFound: no configuration has it.
    """
    for found in _configurations(directory):
        if found.get("name") == name:
            single = {"cniVersion": found.get("cniVersion", "0.3.1"), "name": name, "plugins": [found]}
            return found if "plugins" in found else single
    raise NotFound(f"no CNI network {name!r} in {directory}", hint="see the names in its files")


def first_network(directory: Path = CONFIG) -> str:
    """The name of the network whose file is the first one by its name, as kubelets' runtimes choose it.

    :raise NotFound: there is none.
    """
    for found in _configurations(directory):
        if name := found.get("name"):
            return str(name)
    raise NotFound(f"there is no CNI network in {directory}", hint="install one, or configure another network")


def _configurations(directory: Path) -> Iterator[dict[str, Any]]:
    """In the order of their files; what is no configuration is passed over."""
    for path in sorted(directory.glob("*.conf*")):
        try:
            found = json.loads(path.read_text())
        except (OSError, ValueError):
            continue
        if isinstance(found, dict):
            yield found


async def _call(
    plugin: dict[str, Any],
    network: dict[str, Any],
    command: str,
    pod_id: str,
    netns: str,
    previous: Any,
    ports: list[PortMapping],
    args: Mapping[str, str],
) -> Any:
    binary = shutil.which(plugin["type"], path=":".join(PLUGINS))
    if not binary:
        raise Unavailable(
            f"the CNI plugin {plugin['type']!r} is not installed", hint="install containernetworking-plugins"
        )
    config = {**plugin, "name": network["name"], "cniVersion": network.get("cniVersion", "0.3.1")}
    if previous:
        config["prevResult"] = previous
    if (config.get("capabilities") or {}).get("portMappings"):
        mappings = [
            {"hostPort": p.host_port, "containerPort": p.container_port, "protocol": p.protocol, "hostIP": p.host_ip}
            for p in ports
        ]
        config["runtimeConfig"] = {"portMappings": mappings}
    settings = {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": pod_id,
        "CNI_NETNS": netns,
        "CNI_IFNAME": _INTERFACE,
        "CNI_PATH": ":".join(PLUGINS),
    }
    if args:
        settings["CNI_ARGS"] = ";".join(f"{key}={value}" for key, value in {"IgnoreUnknown": "1", **args}.items())
    done = await helpers.run(order(Path(binary), plugin, settings), stdin=json.dumps(config).encode())
    if done.status:
        try:
            message = json.loads(done.stdout)["msg"]
        except (ValueError, KeyError):
            message = (done.stderr or done.stdout).strip()
        raise Unavailable(
            f"the CNI plugin {plugin['type']} failed: {message}", hint=f"check the network {network['name']!r}"
        )
    return json.loads(done.stdout) if done.stdout.strip() else previous


async def _tool(*args: str) -> str:
    done = await run(*args)
    if done.status:
        raise Unavailable(f"{' '.join(args)}: {done.stderr.strip()}", hint="is the package iproute2 installed?")
    return done.stdout


def namespace_of(pod_id: str) -> str:
    """The name of the network namespace that CNI's plugins prepare for a pod."""
    return f"hyc-{pod_id[:10]}"


async def attach(
    name: str, pod_id: str, ports: list[PortMapping], directory: Path = CONFIG, args: Mapping[str, str] = NOTHING
) -> CniState:
    """Make the namespace, run the plugins, join interface and tap; `args` is what they are told of the pod.

    :raise NotFound: no such network. :raise Unavailable: a plugin failed; nothing is left behind.
    """
    network = find_network(name, directory)
    namespace = namespace_of(pod_id)
    await _tool("ip", "netns", "add", namespace)
    try:
        await _tool("ip", "-n", namespace, "link", "set", "lo", "up")
        result: Any = None
        for plugin in network["plugins"]:
            result = await _call(plugin, network, "ADD", pod_id, str(_NAMESPACES / namespace), result, ports, args)
        return await _state(name, namespace, result)
    except BaseException:
        await detach(CniState(network=name, namespace=namespace, mac=""), pod_id, ports, directory, args)
        raise


async def _state(name: str, namespace: str, result: dict[str, Any]) -> CniState:
    link = json.loads(await _tool("ip", "-n", namespace, "-json", "link", "show", _INTERFACE))[0]
    addresses = [ip["address"] for ip in result.get("ips", [])]
    gateways = [ip["gateway"] for ip in result.get("ips", []) if ip.get("gateway")]
    gateways += [
        route["gw"] for route in result.get("routes") or [] if route.get("gw") and route.get("dst") in _EVERYWHERE
    ]
    # The guest has them now.
    await _tool("ip", "-n", namespace, "addr", "flush", "dev", _INTERFACE)
    servers = (result.get("dns") or {}).get("nameservers") or []
    return CniState(
        network=name,
        namespace=namespace,
        mac=link["address"],
        mtu=link["mtu"],
        addresses=addresses,
        gateways=list(dict.fromkeys(gateways)),
        dns=servers,
    )


async def detach(
    state: CniState, pod_id: str, ports: list[PortMapping], directory: Path = CONFIG, args: Mapping[str, str] = NOTHING
) -> None:
    """Undo `attach`. Idempotent; what a plugin complains of does not stop the others."""
    path = str(_NAMESPACES / state.namespace)
    try:
        network = find_network(state.network, directory)
        for plugin in reversed(network["plugins"]):
            try:
                await _call(plugin, network, "DEL", pod_id, path, None, ports, args)
            except Unavailable:
                continue
    except NotFound:
        pass
    await run("ip", "netns", "del", state.namespace)


async def open_tap(namespace: str, interface: str = _INTERFACE, tap: str = _TAP) -> int:
    """A descriptor of a tap in the namespace, which is named or a path, joined to an interface there.

    :raise Unavailable: there is no such namespace or interface.
    """
    fd = await _create_tap(namespace, tap)
    try:
        await _join(namespace, interface, tap)
    except BaseException:
        os.close(fd)
        raise
    return fd


async def move_tap(name: str, namespace: str) -> None:
    """Bring a tap of this namespace, which a machine has, into a pod's, and join it to the interface there.

    :raise Unavailable: there is no such tap, namespace or interface.
    """
    await _tool("ip", "link", "set", name, "netns", namespace, "name", _TAP)
    await _join(namespace, _INTERFACE, _TAP)


async def _join(namespace: str, interface: str, tap: str) -> None:
    inside = ("nsenter", f"--net={_NAMESPACES / namespace}")
    await _tool(*inside, "ip", "link", "set", tap, "up")
    # An earlier machine's, in a namespace that has outlived it, leads to a tap that is gone.
    await run(*inside, "tc", "qdisc", "del", "dev", interface, "ingress")
    for source, target in ((interface, tap), (tap, interface)):
        everything = ("parent", "ffff:", "protocol", "all", "u32", "match", "u8", "0", "0")
        redirect = ("action", "mirred", "egress", "redirect", "dev", target)
        await _tool(*inside, "tc", "qdisc", "add", "dev", source, "ingress")
        await _tool(*inside, "tc", "filter", "add", "dev", source, *everything, *redirect)


async def _create_tap(namespace: str, tap: str) -> int:
    made = asyncio.ensure_future(asyncio.to_thread(_in_namespace, namespace, lambda: create_tap(tap)))
    try:
        return await tasks.to_the_end(made)
    except asyncio.CancelledError:
        if not made.cancelled() and made.exception() is None:
            os.close(made.result())
        raise


def _in_namespace(namespace: str, action: Callable[[], int]) -> int:
    """Run something in a network namespace: this thread goes there, and back."""
    libc = ctypes.CDLL(None, use_errno=True)
    path = _NAMESPACES / namespace
    if not path.exists():
        raise Unavailable(f"there is no network namespace {path} on this host", hint="make it with `ip netns add`")
    with open("/proc/thread-self/ns/net") as home, open(path) as there:
        if libc.setns(there.fileno(), _CLONE_NEWNET):
            raise Unavailable(f"the namespace {namespace} cannot be entered: {os.strerror(ctypes.get_errno())}")
        try:
            return action()
        finally:
            libc.setns(home.fileno(), _CLONE_NEWNET)
