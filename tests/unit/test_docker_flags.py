# SPDX-License-Identifier: Apache-2.0
"""Docker's flags of run and create: each works, or one sentence says what is missing and what to do."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from hypercontainer.engine import related
from hypercontainer.engine.registry import Registry
from hypercontainer.errors import HyperError, InvalidArgument
from hypercontainer.hyperctl.names import complete_names
from hypercontainer.hyperctl.options import spec_from
from hypercontainer.hyperctl.run import create, run
from hypercontainer.model.detach_keys import parse_detach_keys
from hypercontainer.model.network import Attachment
from hypercontainer.model.ports import published
from hypercontainer.model.specs import ContainerSpec, HostEntry, Mount, PortMapping
from hypercontainer.model.status import Container, MountPoint, Pod, Process


def parsed(*args: str, verb: Any = run) -> dict[str, Any]:
    return dict(verb.make_context("run", list(args)).params)


def spec(*args: str, verb: Any = run) -> ContainerSpec:
    o = parsed(*args, "busybox", "-x", verb=verb)
    if o.get("short_shares"):
        o["cpu_shares"] = o["short_shares"]
    assert (o["image"], o["command"]) == ("busybox", ("-x",)), args
    return spec_from(o["image"], o["command"], o)


WORKS: list[tuple[list[str], Callable[[ContainerSpec], object], object]] = [
    (["--init"], lambda s: s.run_init, True),
    ([], lambda s: (s.run_init, s.pid), (False, "")),
    (["--pid", "private"], lambda s: s.pid, "container"),
    (["--pid=pod"], lambda s: s.pid, "pod"),
    (["--pod", "p", "--pid", "container:x"], lambda s: s.pid, "container:x"),
    (["--security-opt", "no-new-privileges"], lambda s: s.no_new_privileges, True),
    (["--security-opt=seccomp=unconfined"], lambda s: s.seccomp, "unconfined"),
    (["--security-opt", "apparmor=unconfined", "--security-opt", "label=disable"], lambda s: s.seccomp, "default"),
    (
        ["-P", "--expose", "80", "--expose", "8000-8001/udp"],
        lambda s: (s.publish_all, s.expose),
        (True, ["80/tcp", "8000/udp", "8001/udp"]),
    ),
    (["-m", "64m", "--memory-swap", "64m", "--memory-reservation", "32m"], lambda s: s.resources.memory, 64 << 20),
    (["--memory-swap", "-1"], lambda s: s.resources.memory, 0),
    (["--cpu-quota", "50000"], lambda s: s.resources.cpus, 0.5),
    (["--cpu-quota", "50000", "--cpu-period", "25000"], lambda s: s.resources.cpus, 2.0),
    (["--oom-score-adj", "0"], lambda s: s.image, "busybox"),
    (["--ipc", "private", "--pid", "private", "--userns=host", "--uts", "private"], lambda s: s.image, "busybox"),
    (["--network", "default"], lambda s: [n.name for n in s.networks], ["bridge"]),
    (["--rm=true"], lambda s: s.auto_remove, True),
    (["--rm=false", "-t=0", "-i=1"], lambda s: (s.auto_remove, s.tty, s.stdin), (False, False, True)),
    (["--read-only=T", "--privileged=f"], lambda s: (s.read_only, s.privileged), (True, False)),
    (["-v=data:/d"], lambda s: [(m.source, m.target) for m in s.mounts], [("data", "/d")]),
    (["-e=A=b", "-itw", "/w"], lambda s: (s.env, s.tty, s.stdin, s.workdir), (["A=b"], True, True, "/w")),
    (["--add-host", "h=fd00::1"], lambda s: s.hosts, [HostEntry(ip="fd00::1", names=["h"])]),
    (["--add-host", "h:10.0.0.1"], lambda s: s.hosts, [HostEntry(ip="10.0.0.1", names=["h"])]),
    (["--add-host", "h:host-gateway"], lambda s: s.hosts, [HostEntry(ip="host-gateway", names=["h"])]),
    (["-p", "0:80"], lambda s: s.ports, [PortMapping(container_port=80)]),
    (["-p", "8080:80/TCP"], lambda s: s.ports, [PortMapping(container_port=80, host_port=8080)]),
    (["-p", "53:53/UDP"], lambda s: s.ports, [PortMapping(container_port=53, host_port=53, protocol="udp")]),
    (["--detach-keys", "ctrl-x,x"], lambda s: s.image, "busybox"),
    (["-a", "stdout", "-a=STDERR", "--attach", "stdin"], lambda s: s.image, "busybox"),
]


@pytest.mark.parametrize(("args", "look", "found"), WORKS, ids=[" ".join(a) for a, _, _ in WORKS])
def test_works(args: list[str], look: Callable[[ContainerSpec], object], found: object) -> None:
    assert look(spec(*args)) == found
    if not any(a.startswith(("-a", "--attach")) for a in args):
        assert look(spec(*args, verb=create)) == found


REFUSED = [
    (["--net=host"], "a virtual machine has a network of its own: publish ports with -p"),
    (["--network", "container:x"], "a virtual machine has a network of its own: containers share that in one pod"),
    (["--device", "/dev/fuse"], "--device /dev/fuse: a device of this host cannot be brought into a virtual machine"),
    (["--gpus", "all"], "--gpus all: a GPU of this host cannot be brought into a virtual machine"),
    (["--memory-swap", "1g", "-m", "64m"], "a virtual machine does not swap: give the same as --memory"),
    (["--memory-reservation", "1g", "-m", "64m"], "is more than --memory 64m"),
    (["-c", "512"], "CPU shares weigh containers of one kernel, and each virtual machine has its own: use --cpus"),
    (["--cpu-shares", "512"], "use --cpus"),
    (["--cpuset-cpus", "0,1"], "a virtual machine is not tied to CPUs of this host: use --cpus"),
    (["--cpu-quota", "5"], "invalid CPU quota 5"),
    (["--cpu-quota", "5000", "--cpus", "1"], "--cpus and --cpu-quota say the same"),
    (["--oom-score-adj", "500"], "--oom-score-adj 500: the score"),
    (["--ipc", "host"], "a virtual machine has its own IPC"),
    (["--pid", "host"], "a virtual machine cannot see the processes of this host: leave it out, or give --pid pod"),
    (["--pid", "container:x"], "containers share that in one pod"),
    (["--pid", "shared"], "unknown PID mode 'shared': give private, pod or container:NAME"),
    (["--userns", "keep-id"], "users of a virtual machine are its own already"),
    (["--uts", "host"], "set it with --hostname"),
    (["--security-opt", "apparmor=mine"], "the guest's kernel has no AppArmor"),
    (["--security-opt", "label=type:t"], "the guest's kernel has no SELinux"),
    (
        ["--security-opt", "seccomp=/no/such.json"],
        "the seccomp profile /no/such.json cannot be read: No such file or directory",
    ),
    (["--security-opt", "odd"], "unknown security option 'odd'"),
    (["-p", "[::1%lo]:8080:80"], "give an address of this host, IPv6 in [ ]"),
    (["--expose", "80-70"], "invalid port"),
    (["--expose", "x"], "write PORT[-PORT][/tcp|udp]"),
    (["--add-host", "h"], "NAME:host-gateway for this host"),
    (["--rm=maybe"], "invalid value 'maybe' of --rm: write true or false"),
]


@pytest.mark.parametrize(("args", "says"), REFUSED, ids=[" ".join(a) for a, _ in REFUSED])
def test_refused_in_a_sentence(args: list[str], says: str) -> None:
    with pytest.raises(HyperError) as error:
        spec(*args)
    assert says in str(error.value)


def test_streams_to_attach_are_no_image() -> None:
    o = parsed("-a", "stdout", "-a=stdin", "busybox", "-a", "stderr")
    assert (o["image"], o["command"], o["attach_stream"], o["attach"]) == (
        "busybox",
        ("-a", "stderr"),
        ("stdout", "stdin"),
        False,
    )
    assert parsed("-a", "-p", "pod.yaml")["attach"] is True


def test_detach_keys() -> None:
    assert (
        parse_detach_keys("ctrl-p,ctrl-q") == parse_detach_keys("") == b"\x10\x11"
        and parse_detach_keys("a,ctrl-@,ctrl-[") == b"a\x00\x1b"
    )
    with pytest.raises(InvalidArgument, match="invalid detach keys 'ctrl-,'"):
        parse_detach_keys("ctrl-,")


def test_published_ports_of_the_image() -> None:
    asked = ContainerSpec(
        image="i", publish_all=True, expose=["53/udp"], ports=[PortMapping(container_port=80, host_port=8080)]
    )
    assert published(asked, {"80/tcp": {}, "443": {}}) == [
        PortMapping(container_port=80, host_port=8080),
        PortMapping(container_port=443),
        PortMapping(container_port=53, protocol="udp"),
    ]
    assert published(ContainerSpec(image="i", expose=["53/udp"]), {"80/tcp": {}}) == []


def other(*mounts: MountPoint) -> Container:
    process = Process(args=["x"], env=[], cwd="/", user="", stop_signal=15)
    return Container(
        id="o" * 64,
        name="other",
        pod="p",
        created_at="",
        image="i",
        image_id="i",
        hostname="h",
        process=process,
        spec=ContainerSpec(image="i"),
        mounts=list(mounts),
    )


def completed(container: Container, pod: Pod, *args: str) -> ContainerSpec:
    class Records:
        """What `related` asks a registry for."""

        def container(self, _: str) -> Container:
            return container

        def pod(self, _: str) -> Pod:
            return pod

    return related.complete(cast(Registry, Records()), spec_from("busybox", (), parsed(*args, "busybox")))


def test_volumes_from_and_link() -> None:
    nic = Attachment(network="bridge", interface="eth0", tap="t", mac="0a:00:00:00:00:01", ip="172.20.0.9")
    pod = Pod(id="p", name="p", created_at="", hostname="h", vcpus=1, memory=1, attachments=[nic])
    data, memory = Mount(target="/data", source="data"), Mount(target="/t", type="tmpfs")
    container = other(MountPoint(mount=data, volume="data"), MountPoint(mount=memory, volume=""))
    found = completed(container, pod, "--volumes-from", "other:ro", "--link", "other:db")
    assert found.mounts == [Mount(target="/data", source="data", read_only=True)]
    assert found.hosts == [HostEntry(ip="172.20.0.9", names=["db", "other"])]
    own = completed(container, pod, "--volumes-from", "other", "-v", "mine:/data")
    assert [(m.source, m.target) for m in own.mounts] == [("mine", "/data")]
    with pytest.raises(
        InvalidArgument, match="lies on that container's own disk: give it a name there, with -v NAME:/anon"
    ):
        completed(other(MountPoint(mount=Mount(target="/anon"), volume="")), pod, "--volumes-from", "other")
    with pytest.raises(InvalidArgument, match="is in no network of this host"):
        completed(container, Pod(id="p", name="p", created_at="", hostname="h", vcpus=1, memory=1), "--link", "other")


def test_names_are_completed(monkeypatch: pytest.MonkeyPatch) -> None:
    from click.shell_completion import ShellComplete

    from hypercontainer.hyperctl.cli import cli

    there = {
        "container": ["web-1", "db"],
        "pod": ["pod-a"],
        "volume": ["vol-a"],
        "network": ["net-a"],
        "image": ["busybox"],
    }
    asked = []

    def known(kinds: tuple[str, ...], host: str, context: str) -> list[str]:
        asked.append(host or context)
        return [n for k in kinds for n in there[k]]

    monkeypatch.setattr("hypercontainer.hyperctl.names.known_names", known)
    shell = ShellComplete(cli, {}, "hyperctl", "_HYPERCTL_COMPLETE")

    def offered(*args: str, incomplete: str = "") -> set[str]:
        return {c.value for c in shell.get_completions(list(args), incomplete)}

    assert offered("stop") >= {"web-1", "db", "pod-a"} and offered("exec", incomplete="w") == {"web-1"}
    assert offered("pod", "rm") == {"pod-a"} and offered("volume", "rm") == {"vol-a"} and offered("rmi") == {"busybox"}
    assert (
        offered("network", "inspect") == {"net-a"}
        and "busybox" in offered("run")
        and offered("volume", "create") == set()
    )
    for verb in ("run", "create", "pull"):
        assert offered(verb, "--platform") == {"linux/amd64", "linux/arm64", "linux/386"}
    assert offered("run", "--platform", incomplete="linux/ar") == {"linux/arm64"}
    assert offered("-H", "/a.sock", "rm") == {"web-1", "db"} and asked[-2:] == ["", "/a.sock"]
    assert offered("--context", "farm", "rm") == {"web-1", "db"} and asked[-1] == "farm"
    complete_names(run)  # again changes nothing


def test_names_are_asked_of_the_daemon_that_is_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As a shell asks: outside of any command's context. Where no daemon is, none is started, and nothing offered."""
    from hypercontainer.client.api import Client
    from hypercontainer.hyperctl.names import known_names

    monkeypatch.setenv("HYPER_HOST", str(tmp_path / "none.sock"))
    assert known_names(("container", "image")) == []
    monkeypatch.setattr(Client, "call", lambda *_: [{"name": "a"}, {"name": "b"}])
    assert known_names(("container",)) == ["a", "b"]
