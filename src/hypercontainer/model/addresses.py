# SPDX-License-Identifier: Apache-2.0
"""Whether a text is what its field calls it: an address, a subnet, a NIC's or an interface's name.

They end in rules of the host's firewall, on command lines and in files of the
guest; so nothing else gets into a record. A scope (`fe80::1%eth0`), which
`ipaddress` takes whatever it says, is none of them.
"""

from __future__ import annotations

import re
import socket

from ..errors import InvalidArgument

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_LINK = re.compile(r"[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,14}")  # IFNAMSIZ is 16 with its end
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_BITS = {4: 32, 6: 128}


class InvalidAddress(InvalidArgument, ValueError):
    """A ValueError too, by which msgspec knows that a field is wrong, and names it."""


def ip_version(text: str) -> int:
    """4 or 6; 0 for what is no address."""
    for version, family in _FAMILIES.items():
        try:
            socket.inet_pton(family, text)
        except (OSError, ValueError):  # the latter of a NUL or what is not UTF-8
            continue
        return version
    return 0


def canonical(text: str) -> str:
    """The one way to write an address, so that equal ones are equal texts.

    :raise InvalidAddress: when it is none.
    """
    check_ip(text)
    family = _FAMILIES[ip_version(text)]
    return socket.inet_ntop(family, socket.inet_pton(family, text))


def check_ip(text: str, what: str = "IP address", version: int = 0, of: str = "") -> None:
    """:raise InvalidAddress: when it is no address, or not of that version."""
    found = ip_version(text)
    if not found or version not in (0, found):
        kind = {0: "an IPv4 or IPv6", 4: "an IPv4", 6: "an IPv6"}[version]
        raise InvalidAddress(f"invalid {what} {text!r}{of}", hint=f"give {kind} address")


def check_cidr(text: str, what: str = "network", of: str = "") -> None:
    """`10.0.0.0/8`, `fd00::1/64`, or an address alone.

    :raise InvalidAddress: when it is none.
    """
    address, slash, prefix = text.partition("/")
    version = ip_version(address)
    fits = not slash or (re.fullmatch("[0-9]{1,3}", prefix, re.ASCII) and int(prefix) <= _BITS.get(version, 0))
    if not version or not fits:
        raise InvalidAddress(f"invalid {what} {text!r}{of}", hint="write it as 10.0.0.0/8")


def check_mac(text: str) -> None:
    """:raise InvalidAddress: when it is no address of one NIC."""
    if not _MAC.fullmatch(text) or int(text[:2], 16) & 1:
        raise InvalidAddress(
            f"invalid MAC address {text!r}", hint="write it as 0a:00:00:00:00:01, lower case, of a single NIC"
        )


def check_link(text: str, what: str = "interface name") -> None:
    """:raise InvalidAddress: when Linux would have no interface of that name."""
    if not _LINK.fullmatch(text):
        raise InvalidAddress(f"invalid {what} {text!r}", hint="give up to 15 letters, digits, and . _ -")


def check_word(text: str, what: str) -> None:
    """Of a file like /etc/hosts, where a blank ends it.

    :raise InvalidAddress: when it is empty, or has blanks or control characters.
    """
    if not text or not text.isprintable() or any(c.isspace() or c == "#" for c in text):
        raise InvalidAddress(f"invalid {what} {text!r}", hint="give it without blanks")
