# SPDX-License-Identifier: Apache-2.0
"""What there must be."""

from __future__ import annotations

from dataclasses import dataclass, field

LOST = 255  # the status of a container whose machine ended under it
KILLED, ASKED, ENDED = 137, 4, 3  # by SIGKILL; what PROGRAM ends with by SIGTERM and by SIGUSR1

# Writes to its own disk, its volume and its output at each start, serves its name, says a line more by SIGUSR2.
PROGRAM = """
trap 'exit 3' USR1; trap 'exit 4' TERM; trap 'echo said' USR2
echo $1 >> /root/log
[ ! -d /data ] || echo $1 >> /data/log
mkdir -p /w; echo $1 > /w/index.html
httpd -p 80 -h /w 2>/dev/null
sync; echo up
while :; do sleep 100000 & wait $!; kill $!; done 2>/dev/null
"""


@dataclass
class Box:
    """A container."""

    name: str
    policy: str = "no"
    volume: str = ""
    network: str = ""
    port: int = 0  # published by the host, 0: none
    pod: str = ""  # "": it has a pod of its own
    state: str = "created"  # or running, paused, exited
    codes: frozenset[int] = frozenset({0})
    starts: int = 0
    again: int = 0  # times that its policy started it; each takes longer
    output: list[str] = field(default_factory=list)

    @property
    def up(self) -> bool:
        return self.state in ("running", "paused")


@dataclass
class Model:
    """All that the storm has made."""

    boxes: dict[str, Box] = field(default_factory=dict)
    pods: list[str] = field(default_factory=list)
    networks: list[str] = field(default_factory=list)
    volumes: dict[str, list[str]] = field(default_factory=dict)  # with the lines that were written to them

    def started(self, box: Box) -> None:
        """By somebody, or by its policy."""
        box.state, box.codes = "running", frozenset({0})
        box.starts += 1
        box.output.append("up")
        if box.volume:
            self.volumes[box.volume].append(box.name)

    def ended(self, box: Box, *codes: int, wanted: bool = False) -> None:
        """With one of the statuses; its policy starts it again, unless somebody wanted its end."""
        if not wanted and box.policy in ("always", "on-failure"):
            box.again += 1
            self.started(box)
        else:
            box.state, box.codes = "exited", frozenset(codes)

    def machine_ended(self, box: Box) -> None:
        """All that ran in it has."""
        for other in self.beside(box):
            if other.up:
                self.ended(other, LOST)

    def of(self, *states: str) -> list[Box]:
        return [b for b in self.boxes.values() if b.state in states]

    def alone(self, *states: str) -> list[Box]:
        """Those with a pod of their own."""
        return [b for b in self.of(*states) if not b.pod]

    def members(self, pod: str) -> list[Box]:
        return [b for b in self.boxes.values() if b.pod == pod]

    def beside(self, box: Box) -> list[Box]:
        """Those of its machine, itself too."""
        return self.members(box.pod) if box.pod else [box]

    def in_network(self, name: str) -> bool:
        return any(b.network == name for b in self.boxes.values())

    def with_volume(self, name: str) -> list[Box]:
        return [b for b in self.boxes.values() if b.volume == name]
