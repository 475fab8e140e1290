# SPDX-License-Identifier: Apache-2.0
"""The hyperd command."""

from __future__ import annotations

import asyncio
import gc
import sys
from pathlib import Path
from typing import Any

import click

from .. import __version__
from ..errors import HyperError, InvalidArgument

LOG_DRIVERS = ("json-file", "none", "k8s-file", "journald", "syslog")  # as in the model, which `--help` does not import


@click.command(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, message="hyperd %(version)s")
@click.option(
    "--config",
    "config_file",
    type=click.Path(path_type=Path),
    help="Configuration file [default: /etc/hyper/hyperd.toml].",
)
@click.option("--root", help="State: images, disks, database [default: /var/lib/hyper, or the user's data directory].")
@click.option("--run", help="Sockets and logs of running VMs [default: /run/hyper, or the user's runtime directory].")
@click.option("--socket", help="The API's socket [default: hyper.sock below --run].")
@click.option("--group", help="Who may use the socket, with the rights of hyperd [default: hyper, for root's].")
@click.option("--socket-mode", help="The socket's mode [default: 660].")
@click.option("--docker/--no-docker", default=None, help="Serve Docker's own clients, or not.")
@click.option("--docker-socket", help="The socket for these [default: docker.sock below --run].")
@click.option(
    "--docker-listen",
    multiple=True,
    metavar="tcp://ADDRESS:PORT",
    help="Serve them there too, with TLS, if they show certificates; may be repeated.",
)
@click.option(
    "--console-listen",
    multiple=True,
    metavar="tcp://ADDRESS:PORT",
    help="Serve the console, pages for browsers, here; with TLS where others than this host reach it.",
)
@click.option("--cri/--no-cri", default=None, help="Be the container runtime of a kubelet, or not [default: not].")
@click.option("--cri-socket", help="The socket for it [default: cri.sock below --run].")
@click.option(
    "--listen", multiple=True, metavar="tcp://ADDRESS:PORT", help="Serve the API there too, with TLS; may be repeated."
)
@click.option("--tlscert", help="Certificate of hyperd, a PEM file.")
@click.option("--tlskey", help="Its key, a PEM file that only hyperd's user can read.")
@click.option("--tlscacert", help="CA of clients' certificates, a PEM file [default: clients have tokens only].")
@click.option("--tlscrl", help="Which of them were revoked, a PEM file; a client with one is refused.")
@click.option("--kernel", help="A vmlinux to boot instead of hyperkernel.")
@click.option(
    "--driver", help="Hypervisor of pods that name none: qemu, firecracker, libvirt, xen, auto [default: qemu]."
)
@click.option("--prefer", type=click.Choice(["features", "density"]), help="What auto looks for [default: features].")
@click.option("--qemu", help="QEMU's binary [default: qemu-system-x86_64].")
@click.option("--firecracker", help="Firecracker's binary [default: firecracker].")
@click.option("--libvirt-uri", help="Where libvirt is [default: qemu:///system for root, else qemu:///session].")
@click.option(
    "--accelerator",
    type=click.Choice(["auto", "kvm", "tcg"]),
    help="auto tries KVM by booting a guest [default: auto].",
)
@click.option("--boot-timeout", type=float, help="Seconds that a guest may take to come up [default: 60].")
@click.option(
    "--insecure-registry",
    "insecure_registries",
    multiple=True,
    help="A registry without TLS, or with an unknown certificate; may be repeated.",
)
@click.option(
    "--network", help="Network of pods that name none: bridge, user or none [default: bridge for root, user else]."
)
@click.option("--bridge", help="The daemon's own bridge [default: hyper0].")
@click.option("--bridge-subnet", help="Its IPv4 subnet [default: 192.168.123.0/24].")
@click.option("--bridge-subnet6", help="Its IPv6 subnet [default: fd7c:9a1e:6b0d::/64].")
@click.option(
    "--user-network",
    type=click.Choice(["auto", "passt", "slirp"]),
    help="The user-mode network: passt where it is installed, or QEMU's slirp.",
)
@click.option("--virtiofs/--no-virtiofs", default=None, help="Serve directories of this host by virtiofsd, or none.")
@click.option(
    "--factory/--no-factory", default=None, help="Start virtual machines from templates, or boot each of them."
)
@click.option("--factory-memory", help="What templates may hold [default: 512m].")
@click.option("--pool-memory", help="What machines may hold that wait for a container; 0: none wait [default: 512m].")
@click.option(
    "--log-driver", type=click.Choice(LOG_DRIVERS), help="Where output of containers that name none goes [json-file]."
)
@click.option("--log-opt", "log_opts", multiple=True, metavar="NAME=VALUE", help="Of that log driver; may be repeated.")
@click.option("--live-restore", is_flag=True, default=None, help="Leave containers running when hyperd ends.")
@click.option(
    "--recover",
    is_flag=True,
    help="Make the state anew from what can be read of a damaged database, and from what runs; then serve.",
)
@click.option(
    "--restore",
    "backup",
    metavar="FILE",
    help="Fill an empty root from a backup that `hyperctl backup create` wrote, - for stdin, and end.",
)
@click.option("--audit-log", help="Write who asks for what to this file [default: none].")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
@click.option("--ready-fd", type=int, hidden=True, help="Write to this descriptor when the API answers.")
def main(config_file: Path | None, ready_fd: int | None, recover: bool, backup: str | None, **overrides: Any) -> None:
    """The HyperContainer daemon: runs container images as virtual machines.

    SIGTERM and SIGINT stop all containers first; SIGHUP leaves them running
    for the next hyperd to take up. A second signal ends it at once.
    """
    # Imported here: --help and --version answer at once. What modules are made of stays: no garbage is sought in it.
    gc.disable()
    from .config import load
    from .daemon import serve
    from .logging import set_up

    gc.freeze()
    gc.enable()

    try:
        overrides["insecure_registries"] = list(overrides["insecure_registries"]) or None
        for addresses in ("listen", "docker_listen", "console_listen"):
            overrides[addresses] = list(overrides[addresses]) or None
        overrides["log_opts"] = _pairs(overrides["log_opts"]) or None
        config = load(config_file, overrides)
        set_up(config.log_level, config.log_format)
        if backup:
            from .restoring import restore_backup

            restore_backup(config, backup)
            return
        asyncio.run(serve(config, ready_fd, recover=recover))
    except HyperError as error:
        print(f"hyperd: {error}", file=sys.stderr)
        sys.exit(1)


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    for one in given:
        if not one.partition("=")[0] or "=" not in one:
            raise InvalidArgument(f"invalid log option {one!r}", hint="write NAME=VALUE")
    return dict(one.split("=", 1) for one in given)
