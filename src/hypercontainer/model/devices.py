# SPDX-License-Identifier: Apache-2.0
"""How a device of this host is named that a virtual machine gets: by its PCI address, or its group of VFIO."""

from __future__ import annotations

import re
from typing import Annotated

from msgspec import Meta

from ..errors import InvalidArgument

_ADDRESS = r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_GROUP = r"/dev/vfio/[0-9]+"
# As sysfs writes it, DOMAIN:BUS:SLOT.FUNCTION; or all that is in a group of an IOMMU.
HostDevice = Annotated[str, Meta(pattern=rf"^({_ADDRESS}|{_GROUP})$")]
_SHORT = re.compile(r"[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


def parse_device(text: str, what: str = "--device") -> str:
    """A `HostDevice` as people write it: without a domain, in capitals, and a group as Docker has nodes (`:PATH:rwm`).

    `what` is where it was said.

    :raise InvalidArgument: it is none.
    """
    name = text.partition(":")[0] if text.startswith("/") else text.strip().lower()
    if _SHORT.fullmatch(name):
        name = f"0000:{name}"
    if not re.fullmatch(rf"{_ADDRESS}|{_GROUP}", name):
        raise InvalidArgument(
            f"{what} {text}: a device of this host cannot be brought into a virtual machine",
            hint="use a volume for data; a PCI device can, by its address, such as 0000:00:04.0 (`lspci -D`)",
        )
    return name
