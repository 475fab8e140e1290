# SPDX-License-Identifier: Apache-2.0
"""Docker's flags of run and create that mean something else for a virtual machine, or nothing.

Each works, or says what to do instead.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from ..errors import InvalidArgument
from ..model.units import parse_size
from . import hostflags
from .hostflags import JOIN

_PERIOD = 100_000  # microseconds; Docker's default of --cpu-period

detach_keys_option = click.option(
    "--detach-keys", default="", metavar="KEYS", help="Keys that detach a terminal [default: ctrl-p,ctrl-q]."
)

OPTIONS = [
    click.option("--init", is_flag=True, help="Run the program below an init, which hands on signals and reaps."),
    click.option(
        "--pid",
        default="",
        metavar="private|pod|container:NAME",
        help="Whose processes it sees: its own, or its pod's [default: its own; the pod's in a pod].",
    ),
    click.option(
        "-P",
        "--publish-all",
        is_flag=True,
        help="Publish every port that the image or --expose names, on free ports of this host.",
    ),
    click.option("--expose", multiple=True, metavar="PORT[/PROTOCOL]", help="Name a port or a range for -P."),
    click.option(
        "--volumes-from", multiple=True, metavar="CONTAINER[:ro]", help="Mount what another container mounts."
    ),
    click.option(
        "--link", multiple=True, metavar="CONTAINER[:ALIAS]", help="Have another container's address in /etc/hosts."
    ),
    click.option("--memory-swap", default="", help="The same as --memory: a virtual machine does not swap."),
    click.option("--memory-reservation", default="", help="At most --memory; the machine's memory is its own anyway."),
    click.option("--cpu-quota", type=int, default=0, help="Microseconds of CPU time in each --cpu-period."),
    click.option("--cpu-period", type=int, default=0, help="Microseconds [default: 100000]."),
    detach_keys_option,
    *hostflags.OPTIONS,
]


def check(o: dict[str, Any]) -> None:
    """:raise InvalidArgument: a flag that asks for what a virtual machine cannot have; with what to do instead."""
    hostflags.check(o)
    pid_mode(o["pid"], o["pod"])
    for network in (n.removeprefix("name=") for n in o["network"]):
        if network == "host":
            raise InvalidArgument(
                "--network host: a virtual machine has a network of its own",
                hint="publish ports with -p; it reaches this host by --add-host NAME:host-gateway",
            )
        if network.startswith("container:"):
            raise InvalidArgument(f"--network {network}: a virtual machine has a network of its own", hint=JOIN)
    _check_memory(o)


def pid_mode(text: str, pod: str) -> str:
    """What --pid asks for, in the pod of that name, "" if none.

    :raise InvalidArgument: the processes of something that is not in this virtual machine.
    """
    if text in ("", "private"):
        return "container" if text else ""
    if text == "pod":
        return "pod"
    if text == "host":
        raise InvalidArgument("--pid host: a virtual machine cannot see the processes of this host",
                              hint="leave it out, or give --pid pod to see all of its pod")  # fmt: skip
    if not text.startswith("container:"):
        raise InvalidArgument(f"unknown PID mode {text!r}", hint="give private, pod or container:NAME")
    if pod:
        return text
    raise InvalidArgument(f"--pid {text}: another virtual machine's processes cannot be seen", hint=JOIN)


def _check_memory(o: dict[str, Any]) -> None:
    memory = parse_size(o["memory"]) if o["memory"] else 0
    if o["memory_swap"] not in ("", "-1", "0") and parse_size(o["memory_swap"]) != memory:
        raise InvalidArgument(
            f"--memory-swap {o['memory_swap']}: a virtual machine does not swap",
            hint="give the same as --memory, or leave it out",
        )
    if o["memory_reservation"] and memory and parse_size(o["memory_reservation"]) > memory:
        raise InvalidArgument(
            f"--memory-reservation {o['memory_reservation']} is more than --memory {o['memory']}",
            hint="give at most that",
        )


def cpus(o: dict[str, Any]) -> float:
    """--cpus, or what --cpu-quota and --cpu-period come to.

    :raise InvalidArgument: both, or a period that is none.
    """
    if not o["cpu_quota"] and not o["cpu_period"]:
        return float(o["cpus"])
    if o["cpus"]:
        raise InvalidArgument("--cpus and --cpu-quota say the same", hint="give one of them")
    period = o["cpu_period"] or _PERIOD
    if not 1000 <= period <= 1_000_000 or not (o["cpu_quota"] >= 1000 or o["cpu_quota"] in (0, -1)):
        raise InvalidArgument(
            f"invalid CPU quota {o['cpu_quota']} in a period of {period} µs",
            hint="give a period of 1000 to 1000000, a quota of at least 1000",
        )
    return float(max(o["cpu_quota"], 0) / period)


def security(option: str) -> dict[str, Any]:
    """What of --security-opt is neither no-new-privileges nor a word for seccomp.

    :raise InvalidArgument: what a virtual machine does not have, or a file that cannot be read.
    """
    if option in ("apparmor=unconfined", "label=disable", "label:disable", "apparmor:unconfined"):
        return {}  # there is none in the guest
    kind, _, value = option.replace(":", "=", 1).partition("=")
    if kind == "seccomp" and value:
        return {"seccomp": "default", "seccomp_profile": _profile(value)}
    if kind in ("apparmor", "label"):
        raise InvalidArgument(
            f"--security-opt {option}: the guest's kernel has no {'AppArmor' if kind == 'apparmor' else 'SELinux'}",
            hint="leave it out: the virtual machine is the wall",
        )
    raise InvalidArgument(
        f"unknown security option {option!r}",
        hint="known are no-new-privileges, seccomp=unconfined, seccomp=builtin and seccomp=FILE",
    )


def _profile(path: str) -> str:
    try:
        return Path(path).read_text() or "{}"  # which is as little a profile as nothing
    except OSError as error:
        raise InvalidArgument(f"the seccomp profile {path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise InvalidArgument(f"the seccomp profile {path} is no text") from None


# -- Docker's ways of writing flags -----------------------------------------------------------

_TRUE, _FALSE = ("true", "1", "t", "T", "TRUE", "True"), ("false", "0", "f", "F", "FALSE", "False")
_STREAMS = ("stdin", "stdout", "stderr")


class DockerCommand(click.Command):
    """A command whose flags may be written as Docker's: --rm=true, -d=false, -v=A:B, -a stdout."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        flags, rest = self.split(list(args))
        return super().parse_args(ctx, flags + rest)

    def split(self, args: list[str]) -> tuple[list[str], list[str]]:
        """The flags that come first, as click has them, and what is after them."""
        options = {name: o for o in self.params if isinstance(o, click.Option) for name in [*o.opts, *o.secondary_opts]}
        out: list[str] = []
        while args and args[0].startswith("-") and args[0] not in ("-", "--"):
            word = args.pop(0)
            name, equals, value = word.partition("=")
            option = options.get(name if equals else word)
            short = options.get(word[:2]) if not word.startswith("--") else None
            if name in ("-a", "--attach") and (
                value.lower() in _STREAMS or (not equals and args and args[0].lower() in _STREAMS)
            ):
                out += ["--attach-stream", (value or args.pop(0)).lower()]
            elif option and equals and option.is_flag:
                out += self._flag(name, option, value)
            elif option and equals and not name.startswith("--"):
                out += [name, value]
            else:
                out.append(word)
                option = (
                    option
                    or (short if short and not short.is_flag and len(word) == 2 else None)
                    or self._last_of(word, options)
                )
                if option and not option.is_flag and not equals and args:
                    out.append(args.pop(0))
        return out, args

    @staticmethod
    def _last_of(word: str, options: dict[str, click.Option]) -> click.Option | None:
        """Of letters in one word, such as -itv: the option that takes the next word, if the last is one."""
        if word.startswith("--"):
            return None
        letters = [options.get(f"-{c}") for c in word[1:]]
        if any(o is None or not o.is_flag for o in letters[:-1]):
            return None  # unknown, or the rest of the word is a value
        return letters[-1] if letters else None

    def _flag(self, name: str, option: click.Option, value: str) -> list[str]:
        if value in _TRUE:
            return [name]
        if value in _FALSE:
            return option.secondary_opts[:1]
        raise InvalidArgument(f"invalid value {value!r} of {name}", hint="write true or false")
