# SPDX-License-Identifier: Apache-2.0
"""CRI's messages by their names, and its enumerations' values, as `api.proto` has them: `api.PodSandboxStatus(id=...)`.

The classes are made of the compiled description when this is imported, so there is no generated code.
"""

from __future__ import annotations

from importlib import resources
from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

SERVICES = ("RuntimeService", "ImageService")


def _read() -> Any:
    files = descriptor_pb2.FileDescriptorSet.FromString(resources.files(__package__).joinpath("api.binpb").read_bytes())
    pool = descriptor_pool.DescriptorPool()
    return pool.AddSerializedFile(files.file[0].SerializeToString()) or pool.FindFileByName(files.file[0].name)


FILE: Any = _read()
_KINDS = [
    *FILE.enum_types_by_name.values(),
    *(kind for m in FILE.message_types_by_name.values() for kind in m.enum_types_by_name.values()),
]
_VALUES: dict[str, int] = {name: value.number for kind in _KINDS for name, value in kind.values_by_name.items()}


def message_class(descriptor: Any) -> Any:
    """The class of a message by its description."""
    return message_factory.GetMessageClass(descriptor)


def name_of(enumeration: str, number: int) -> str:
    """The name of a value; "" where it is none of ours."""
    found = FILE.enum_types_by_name[enumeration].values_by_number.get(number)
    return found.name if found else ""


def __getattr__(name: str) -> Any:
    """A message's class, or the number of an enumeration's value."""
    if name in _VALUES:
        return _VALUES[name]
    if name in FILE.message_types_by_name:
        return message_class(FILE.message_types_by_name[name])
    raise AttributeError(name)
