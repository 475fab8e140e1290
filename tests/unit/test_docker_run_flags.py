# SPDX-License-Identifier: Apache-2.0
"""All that `docker run --help` of Docker 28.2 lists: each flag has Docker's meaning, or one sentence says why not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import HyperError
from hypercontainer.hyperctl.run import create, run
from hypercontainer.model.network import NetworkRequest
from hypercontainer.model.specs import ContainerSpec, Ulimit

from .test_docker_flags import parsed, spec

# Recorded from `docker run --help`.
_LISTED = """
add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-count
cpu-percent cpu-period cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach
detach-keys device device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops
disable-content-trust dns dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd
health-interval health-retries health-start-interval health-start-period health-timeout help hostname init interactive
io-maxbandwidth io-maxiops ip ip6 ipc isolation kernel-memory label label-file link link-local-ip log-driver log-opt
mac-address memory memory-reservation memory-swap memory-swappiness mount name network network-alias no-healthcheck
oom-kill-disable oom-score-adj pid pids-limit platform privileged publish publish-all pull quiet read-only restart rm
runtime security-opt shm-size sig-proxy stop-signal stop-timeout storage-opt sysctl tmpfs tty ulimit use-api-socket
user userns uts volume volume-driver volumes-from workdir
"""
DOCKER = _LISTED.split()
SHORT = {
    "-a": "attach", "-c": "cpu-shares", "-d": "detach", "-e": "env", "-h": "hostname", "-i": "interactive",
    "-l": "label", "-m": "memory", "-p": "publish", "-P": "publish-all", "-q": "quiet", "-t": "tty", "-u": "user",
    "-v": "volume", "-w": "workdir",
}  # fmt: skip

# What is asked of the engine: arguments, where to look, what is there.
Row = tuple[list[str], Callable[[ContainerSpec], object], object]
_CHECK = ["--health-cmd", "ok"]
ENGINE: dict[str, Row] = {
    "add-host": (["--add-host", "h:1.2.3.4"], lambda s: s.hosts[0].names, ["h"]),
    "annotation": (["--annotation", "a.b=c"], lambda s: s.annotations, {"a.b": "c"}),
    "cap-add": (["--cap-add", "NET_ADMIN"], lambda s: s.cap_add, ["NET_ADMIN"]),
    "cap-drop": (["--cap-drop", "ALL"], lambda s: s.cap_drop, ["ALL"]),
    "cpu-period": (["--cpu-period", "50000", "--cpu-quota", "25000"], lambda s: s.resources.cpus, 0.5),
    "cpu-quota": (["--cpu-quota", "25000"], lambda s: s.resources.cpus, 0.25),
    "cpus": (["--cpus", "1.5"], lambda s: s.resources.cpus, 1.5),
    "dns": (["--dns", "1.1.1.1"], lambda s: s.dns, ["1.1.1.1"]),
    "dns-option": (["--dns-option", "ndots:2"], lambda s: s.dns_options, ["ndots:2"]),
    "dns-search": (["--dns-search", "x.org"], lambda s: s.dns_search, ["x.org"]),
    "domainname": (["--domainname", "x.org"], lambda s: s.domainname, "x.org"),
    "entrypoint": (["--entrypoint", "/a b"], lambda s: s.entrypoint, ["/a b"]),
    "env": (["-e", "A=b c"], lambda s: s.env, ["A=b c"]),
    "expose": (["--expose", "80"], lambda s: s.expose, ["80/tcp"]),
    "group-add": (["--group-add", "audio"], lambda s: s.groups, ["audio"]),
    "health-cmd": (_CHECK, lambda s: s.health and s.health.command, ["/bin/sh", "-c", "ok"]),
    "health-interval": ([*_CHECK, "--health-interval", "1m"], lambda s: s.health and s.health.interval, 60),
    "health-retries": ([*_CHECK, "--health-retries", "5"], lambda s: s.health and s.health.retries, 5),
    "health-start-interval": (
        [*_CHECK, "--health-start-interval", "1s"], lambda s: s.health and s.health.start_interval, 1
    ),
    "health-start-period": ([*_CHECK, "--health-start-period", "9s"], lambda s: s.health and s.health.start_period, 9),
    "health-timeout": ([*_CHECK, "--health-timeout", "2s"], lambda s: s.health and s.health.timeout, 2),
    "hostname": (["-h", "web"], lambda s: s.hostname, "web"),
    "init": (["--init"], lambda s: s.run_init, True),
    "interactive": (["-i"], lambda s: s.stdin, True),
    "ip": (["--network", "n", "--ip", "10.0.0.9"], lambda s: s.networks[0].ip, "10.0.0.9"),
    "ip6": (["--network", "n", "--ip6", "fd00::9"], lambda s: s.networks[0].ip6, "fd00::9"),
    "label": (["-l", "a=b", "--label", "c"], lambda s: s.labels, {"a": "b", "c": ""}),
    "log-driver": (["--log-driver", "none"], lambda s: s.log.driver, "none"),
    "log-opt": (["--log-driver", "json-file", "--log-opt", "max-file=3"], lambda s: s.log.max_files, 3),
    "mac-address": (["--mac-address", "02:00:00:00:00:01"], lambda s: s.networks[0].mac, "02:00:00:00:00:01"),
    "memory": (["-m", "64m"], lambda s: s.resources.memory, 64 << 20),
    "memory-reservation": (["-m", "64m", "--memory-reservation", "1m"], lambda s: s.resources.memory, 64 << 20),
    "memory-swap": (["-m", "64m", "--memory-swap", "64m"], lambda s: s.resources.memory, 64 << 20),
    "mount": (["--mount", "type=tmpfs,target=/t"], lambda s: s.mounts[0].type, "tmpfs"),
    "name": (["--name", "web"], lambda s: s.name, "web"),
    "network": (
        ["--network", "name=n,alias=a,ip=10.0.0.9", "--network", "m"], lambda s: s.networks,
        [NetworkRequest(name="n", ip="10.0.0.9", aliases=["a"]), NetworkRequest(name="m")],
    ),
    "network-alias": (["--network", "n", "--network-alias", "db"], lambda s: s.networks[0].aliases, ["db"]),
    "no-healthcheck": (["--no-healthcheck"], lambda s: s.no_health, True),
    "pid": (["--pid", "private"], lambda s: s.pid, "container"),
    "pids-limit": (["--pids-limit", "9"], lambda s: s.resources.pids, 9),
    "platform": (["--platform", "linux/arm64"], lambda s: s.platform, "linux/arm64"),
    "privileged": (["--privileged"], lambda s: s.privileged, True),
    "publish": (["-p", "8080:80"], lambda s: s.ports[0].host_port, 8080),
    "publish-all": (["-P"], lambda s: s.publish_all, True),
    "pull": (["--pull", "always"], lambda s: s.pull, "always"),
    "read-only": (["--read-only"], lambda s: s.read_only, True),
    "restart": (["--restart", "on-failure:3"], lambda s: s.restart.max_retries, 3),
    "rm": (["--rm"], lambda s: s.auto_remove, True),
    "security-opt": (["--security-opt", "no-new-privileges"], lambda s: s.no_new_privileges, True),
    "shm-size": (["--shm-size", "1m"], lambda s: s.shm_size, 1 << 20),
    "stop-signal": (["--stop-signal", "INT"], lambda s: s.stop_signal, "INT"),
    "stop-timeout": (["--stop-timeout", "3"], lambda s: s.stop_timeout, 3),
    "sysctl": (["--sysctl", "net.core.somaxconn=9"], lambda s: s.sysctls, {"net.core.somaxconn": "9"}),
    "tmpfs": (["--tmpfs", "/t:size=1m"], lambda s: s.mounts[0].size, 1 << 20),
    "tty": (["-t"], lambda s: s.tty, True),
    "ulimit": (["--ulimit", "nofile=9"], lambda s: s.ulimits, [Ulimit(name="nofile", soft=9, hard=9)]),
    "user": (["-u", "7:8"], lambda s: s.user, "7:8"),
    "volume": (["-v", "data:/d:ro"], lambda s: (s.mounts[0].source, s.mounts[0].read_only), ("data", True)),
    "workdir": (["-w", "/w"], lambda s: s.workdir, "/w"),
}  # fmt: skip
# What the command line does itself, with the tests that show it.
CLIENT = {
    "attach": "test_docker_flags.py::test_streams_to_attach_are_no_image",
    "cidfile": "e2e/test_cli.py", "detach": "e2e/test_cli.py", "detach-keys": "test_docker_flags.py",
    "env-file": "below", "label-file": "below", "help": "click", "quiet": "e2e", "sig-proxy": "e2e",
    "link": "test_docker_flags.py::test_volumes_from_and_link",
    "volumes-from": "test_docker_flags.py::test_volumes_from_and_link",
}  # fmt: skip
# What asks for the host's kernel: a value that is refused, a piece of the sentence, and values that are taken.
HOST: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "blkio-weight": ("500", "each virtual machine has its own: leave it out", ("0",)),
    "blkio-weight-device": ("/dev/sda:500", "devices of this host are not in a virtual machine", ()),
    "cgroup-parent": ("/x", "is hyperd's to choose", ()),
    "cgroupns": ("host", "control groups of its own, and cannot see the host's", ("private",)),
    "cpu-count": ("2", "for containers of Windows", ("0",)),
    "cpu-percent": ("2", "for containers of Windows", ("0",)),
    "cpu-rt-period": ("2", "not scheduled in real time", ("0",)),
    "cpu-rt-runtime": ("2", "not scheduled in real time", ("0",)),
    "cpu-shares": ("512", "use --cpus", ("1024",)),
    "cpuset-cpus": ("0", "use --cpus to limit it", ()),
    "cpuset-mems": ("0", "memory nodes of this host", ()),
    "device": ("/dev/fuse", "use a volume for data", ()),
    "device-cgroup-rule": ("c 1:3 r", "--privileged opens them", ()),
    "device-read-bps": ("/dev/sda:1m", "no limits of its own", ()),
    "device-read-iops": ("/dev/sda:1", "no limits of its own", ()),
    "device-write-bps": ("/dev/sda:1m", "no limits of its own", ()),
    "device-write-iops": ("/dev/sda:1", "no limits of its own", ()),
    "disable-content-trust": ("=false", "hyperd's `image_policy`", ("=true",)),
    "gpus": ("all", "a GPU of this host", ("0",)),
    "io-maxbandwidth": ("1m", "for containers of Windows", ("0",)),
    "io-maxiops": ("2", "for containers of Windows", ("0",)),
    "ipc": ("host", "its own IPC: containers share that in one pod", ("private", "shareable")),
    "isolation": ("hyperv", "'hyperv' is not one of 'default', 'fresh'", ("default",)),
    "kernel-memory": ("1m", "no such limit any more: use -m", ("0",)),
    "link-local-ip": ("169.254.1.1", "use --ip, --ip6", ()),
    "memory-swappiness": ("60", "does not swap", ("-1", "0")),
    "oom-kill-disable": ("=true", "would stand still", ("=false",)),
    "oom-score-adj": ("500", "whose kernel ends only its own: use -m", ("0",)),
    "runtime": ("kata", "choose a hypervisor with --driver", ("runc",)),
    "storage-opt": ("size=1g", "set `scratch_size` of hyperd", ()),
    "use-api-socket": ("=true", "a socket of this host cannot be connected to", ("=false",)),
    "userns": ("keep-id", "its own already", ("host",)),
    "uts": ("host", "set it with --hostname", ("private",)),
    "volume-driver": ("nfs", "no drivers of volumes but `local`", ("local",)),
}


def words(flag: str, value: str) -> list[str]:
    return [f"--{flag}{value}"] if value.startswith("=") else [f"--{flag}", value]


def test_each_flag_of_docker_is_here() -> None:
    assert sorted({*ENGINE, *CLIENT, *HOST}) == sorted(DOCKER) and len(ENGINE | CLIENT | HOST) == len(DOCKER)
    for verb, missing in ((run, {"help", "attach"}), (create, {"help", "attach", "detach", "sig-proxy"})):
        known = {name.lstrip("-") for p in verb.params for name in [*p.opts, *p.secondary_opts]}
        assert set(DOCKER) - known - missing == set()
    known = {name for p in run.params for name in p.opts}
    assert set(SHORT) - known == set()


@pytest.mark.parametrize("flag", ENGINE)
def test_it_is_asked_of_the_engine(flag: str) -> None:
    args, look, found = ENGINE[flag]
    assert look(spec(*args)) == found and spec(*args) != spec()
    assert look(spec(*args, verb=create)) == found


@pytest.mark.parametrize("flag", HOST)
def test_what_asks_for_the_host_is_refused_in_a_sentence(flag: str) -> None:
    refused, says, fine = HOST[flag]
    with pytest.raises(Exception) as error:
        spec(*words(flag, refused))
    text = error.value.format_message() if hasattr(error.value, "format_message") else str(error.value)
    assert says in text and flag in text, text
    for value in fine:
        assert spec(*words(flag, value)) == spec(), value


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["--no-healthcheck", "--health-cmd", "x"], "--no-healthcheck conflicts with --health-* options"),
        (["--health-interval", "5s"], "--health-interval: the image's check is taken as it is"),
        (["--network", "name=n,colour=red"], "invalid network 'name=n,colour=red': unknown 'colour': write name=..."),
        (["--network", "ip=10.0.0.1"], "it has no name"),
        (["--network", "name=host"], "a virtual machine has a network of its own"),
        (["--network", "name=n,ip=10.0.0.1", "--ip", "10.0.0.2"], "ip is given twice for network n"),
        (["--network", "name=none,ip=10.0.0.1"], "network none has no addresses and aliases to choose"),
        (["--network", "a", "--network", "b", "--ip", "10.0.0.1"], "write them as --network name=NAME"),
        (["--annotation", "x"], "invalid annotation 'x': write NAME=VALUE"),
    ],
)
def test_what_cannot_be_together(args: list[str], says: str) -> None:
    with pytest.raises(HyperError) as error:
        spec(*args)
    assert says in str(error.value)


def test_files_of_variables_and_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker strips what is before a line, and nothing behind it."""
    monkeypatch.setenv("TAKEN", "from here")
    (tmp_path / "env").write_text("# a comment\n\n  A=b \nTAKEN\nGONE\nQ='x'\n")
    (tmp_path / "labels").write_text("a=b\n#c=d\ne\n")
    found = spec("--env-file", str(tmp_path / "env"), "--label-file", str(tmp_path / "labels"), "-e", "A=c")
    assert found.env == ["A=b ", "TAKEN=from here", "Q='x'", "A=c"] and found.labels == {"a": "b", "e": ""}


def test_the_usual_flags_of_one_letter() -> None:
    o: dict[str, Any] = parsed("-ditPq", "-lx", "-m1g", "-u0", "-w/w", "-hweb", "-eA=b", "-c1024", "busybox")
    assert o["detach"] and o["interactive"] and o["tty"] and o["publish_all"] and o["quiet"]
    assert (o["label"], o["memory"], o["user"], o["workdir"], o["hostname"]) == (("x",), "1g", "0", "/w", "web")
