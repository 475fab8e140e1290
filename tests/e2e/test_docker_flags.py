# SPDX-License-Identifier: Apache-2.0
"""Docker's further flags, and pods that cannot come up, on virtual machines."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import Daemon, wait_for
from .test_pods import pods

__all__ = ["pods"]


def test_flags_on_a_machine(hyper: Daemon) -> None:
    script = "cat /etc/hosts; echo oops >&2; echo domain $(cat /proc/sys/kernel/domainname)"
    done = hyper.ctl(
        "run",
        "--rm=true",
        "--init",
        "-a",
        "stdout",
        "--network",
        "user:host-loopback",
        "--add-host",
        "here:host-gateway",
        "--hostname=web",
        "--domainname=x.org",
        "busybox",
        "sh",
        "-c",
        script,
    )
    (line,) = [line for line in done.stdout.splitlines() if line.split()[1:] == ["here"]]
    assert "domain x.org" in done.stdout and "\tweb.x.org\tweb\n" in done.stdout
    assert line.split()[0].count(".") == 3 and "oops" not in done.stderr and "oops" not in done.stdout
    assert hyper.ctl("run", "--rm", "-a=stderr", "busybox", "sh", "-c", "echo out; echo oops >&2").stdout == ""


def test_published_by_name_filtered_and_inspected(hyper: Daemon) -> None:
    hyper.ctl("run", "-d", "--name", "u1", "-P", "--expose", "8000-8001", "busybox", "sleep", "100")
    hyper.ctl("run", "-d", "--name", "u11", "busybox", "sleep", "100")
    try:
        assert (
            hyper.out("ps", "-q", "--no-trunc", "-f", "name=^/u1$") == json.loads(hyper.out("inspect", "u1"))[0]["id"]
        )
        table = hyper.out("ps", "-f", "name=^u1$", "--format", "table {{.Names}}\\t{{.Ports}}").splitlines()
        assert (
            table[0].split() == ["NAMES", "PORTS"]
            and table[1].split()[0] == "u1"
            and "->8000" in table[1]
            and "8001/tcp" in table[1]
        )
        linked = hyper.ctl("run", "--rm", "--link", "u1:db", "busybox", "cat", "/etc/hosts", check=False)
        address = hyper.out("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "u1")
        if address:  # in a network of this host
            assert [address, "db", "u1"] in [line.split() for line in linked.stdout.splitlines()]
        else:
            assert "is in no network of this host" in linked.stderr
    finally:
        hyper.ctl("rm", "-f", "u1", "u11")


def test_a_crash_loop_that_others_wait_for_ends_the_start(pods: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    path.write_text("""
id: looping
containers:
  - name: db
    image: busybox
    command: [sh, -c, 'echo cannot start; exit 7']
    restartPolicy: always
    healthCheck: {shell: 'true', interval: 1}
  - {name: web, image: busybox, command: [sleep, '100'], dependsOn: [{container: db, condition: healthy}]}
""")
    done = pods.ctl("run", "-p", path, "-a", check=False)
    assert done.returncode == 125, done.stderr
    assert (
        "container web waits for db to be healthy, but it ended 5 times, at last with status 7" in done.stderr
        and "cannot start" in done.stderr
    )
    assert "hyperctl logs" not in done.stderr and "the pod was removed again" in done.stderr
    assert "looping" not in pods.out("pod", "ls")


def test_internal_services_stay_inside(pods: Daemon, tmp_path: Path) -> None:
    path = tmp_path / "compose.yaml"
    path.write_text("""
name: inside
networks: {back: {internal: true}}
services:
  db:
    image: busybox
    networks: [back]
    container_name: the-db
    command: sh -c 'ip -o addr | grep -v " lo " | wc -l; ip route | wc -l'
""")
    done = pods.ctl("run", "-p", path, "-a", "--rm")
    assert [line.split(" | ")[1] for line in done.stdout.splitlines()] == ["0", "0"] and done.stdout.startswith(
        "the-db"
    )


def test_update(hyper: Daemon) -> None:
    hold = "head -c 60000000 /dev/zero | tail -c 60000000 | { head -c 1 >/dev/null; echo held; exec sleep 1000; }"
    hyper.ctl("run", "-d", "--name", "one", "-m", "200m", "busybox", "sh", "-c", hold)
    wait_for(lambda: hyper.out("logs", "one") == "held", "the memory")

    def limits() -> list[str]:
        files = (f"/sys/fs/cgroup/{name}" for name in ("memory.max", "cpu.max", "pids.max"))
        return hyper.out("exec", "one", "cat", *files).splitlines()

    assert hyper.out("update", "-m", "128m", "--cpus", "0.5", "--pids-limit", "50", "one") == "one"
    assert limits() == [str(128 << 20), "50000 100000", "50"]
    assert hyper.out("update", "--cpus", "0", "--pids-limit", "-1", "--restart", "always", "one") == "one"
    assert limits() == [str(128 << 20), "max 100000", "max"]
    shown = "{{.Spec.Resources.Memory}} {{.Spec.Resources.Cpus}} {{.Spec.Restart.Name}}"
    assert hyper.out("inspect", "-f", shown, "one") == f"{128 << 20} 0 always"
    for flags, says in (
        (["-m", "32m"], "of memory, more than"),
        (["-m", "1g"], "that the virtual machine of one has: stop it first"),
        ([], "nothing to change"),
    ):
        done = hyper.ctl("update", *flags, "one", check=False)
        assert done.returncode and says in done.stderr, done.stderr
    assert limits()[0] == str(128 << 20) and hyper.out("inspect", "-f", "{{.State.RestartCount}}", "one") == "0"
    assert hyper.out("update", "--ttl", "1h", "--idle-timeout", "10m", "one") == "one"
    lifetime = ("inspect", "-f", "{{.Spec.TTL}} {{.Spec.IdleTimeout}}", "one")
    assert hyper.out(*lifetime) == "3600 600"
    hyper.ctl("update", "--ttl", "0", "one")
    assert hyper.out(*lifetime) == "0 600"
    hyper.ctl("kill", "one")  # which says that it was told, not that it has ended
    wait_for(lambda: hyper.out("inspect", "-f", "{{.State.Status}}", "one") == "exited", "its end")
    hyper.ctl("update", "-m", "300m", "one")
    hyper.ctl("start", "one")
    wait_for(lambda: hyper.out("logs", "one") == "held\nheld", "the memory again")
    assert limits()[0] == str(300 << 20)
