# SPDX-License-Identifier: Apache-2.0
"""What a pod's containers resolve names with, /etc/hosts and /etc/resolv.conf; and by which names others find it."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..model.network import Attachment
from ..model.status import Pod


def is_called(pod: Pod, place: Attachment, name: str) -> bool:
    """Whether it is found by a name, in lower case, in the network of one of its places."""
    return name in (pod.name.lower(), pod.hostname.lower(), *(x.lower() for x in place.aliases))


def resolv_conf(
    servers: list[str], search: list[str], options: list[str], host: Path = Path("/etc/resolv.conf")
) -> bytes:  # fmt: skip
    """Search domains and options not given are the host's."""
    try:
        text = host.read_text(errors="replace")
    except OSError:
        text = ""
    lines = [f"nameserver {s}" for s in servers]
    lines += [f"search {' '.join(search)}"] if search else _of_host(text, ("search ", "domain "))
    lines += [f"options {' '.join(options)}"] if options else _of_host(text, ("options ",))
    return ("\n".join(lines) + "\n").encode()


def _of_host(text: str, keys: tuple[str, ...]) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.startswith(keys)]


def hosts_file(
    hostname: str, address: str, local: Iterable[str], extra: Iterable[tuple[str, list[str]]], domain: str = ""
) -> bytes:
    """/etc/hosts as Docker writes it; with a `domain` the full name is first.

    `local` are names of this pod's containers, on its loopback.
    """
    lines = ["127.0.0.1\tlocalhost", "::1\tlocalhost ip6-localhost ip6-loopback", "fe00::\tip6-localnet",
             "ff00::\tip6-mcastprefix", "ff02::1\tip6-allnodes", "ff02::2\tip6-allrouters"]  # fmt: skip
    own = f"{hostname}.{domain}\t{hostname}" if domain else hostname
    lines.append(f"{(address or '127.0.1.1').partition('/')[0]}\t{own}")
    lines += [f"127.0.0.1\t{name}" for name in local if name != hostname]
    lines += [f"{ip}\t{' '.join(names)}" for ip, names in extra]
    return ("\n".join(lines) + "\n").encode()
