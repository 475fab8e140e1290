# SPDX-License-Identifier: Apache-2.0
"""Xen's driver as far as it goes without Xen: its documents, and with programs in the place of Xen's tools."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import InvalidArgument, InvalidState, NotFound, Unavailable
from hypercontainer.hypervisor.driver import Disk, MachineConfig, TapNetwork
from hypercontainer.hypervisor.facets import Footprint
from hypercontainer.hypervisor.xen import disks, document, driver, tools, vifs
from hypercontainer.hypervisor.xen import machine as xen_machine
from hypercontainer.hypervisor.xen.driver import XenDriver
from hypercontainer.hypervisor.xen.machine import XenMachine
from hypercontainer.jail.jail import Started
from hypercontainer.sys import deadlines, process

MIB = 1 << 20
INFO = "xen_version            : 4.17.7\\nvirt_caps              : pv hvm hap\\n"
# A stand-in for xl: a domain is two sockets, and a process that waits until someone destroys it.
XL = r"""
case $1 in
info) printf 'INFO';;
create)
    name=$(sed -n 's/^name = "\(.*\)"/\1/p' "$4")
    echo "$name" >"$here/domain"
    echo "libxl: error: libxl_console.c:271: Domain 7:Primary console has invalid configuration"
    python3 -c 'import os, socket, sys, time
with open(os.environ["here"] + "/qemu", "w") as f: f.write(str(os.getpid()))
for name in sys.argv[2:]:
    sock = socket.socket(socket.AF_UNIX); sock.bind(f"{sys.argv[1]}/{name}.sock"); sock.listen(4)
    keep = globals().setdefault("keep", []); keep.append(sock)
print("Waiting for domain a (domid 7) to die [pid 1]", flush=True)
conn, _ = keep[1].accept()
CALL
time.sleep(600)' "$(dirname "$4")" first second;;
domid) echo 7;;
block-attach|block-detach) shift; echo "$@" >>"$here/plugged";;
network-attach)
    echo "$@" >>"$here/plugged"
    [ ! -e "$here/refuses" ] || { echo "libxl: error: no" >&2; exit 1; }
    echo ${3#mac=} >"$here/vif"; echo ${5#devid=} >"$here/devid";;
network-detach) echo "$@" >>"$here/plugged"; rm "$here/vif";;
unpause|pause) grep -qxs "$2" "$here/domain" || { echo "$2 is an invalid domain identifier (rc=-6)" >&2; exit 1; };;
destroy)
    grep -qxs "$2" "$here/domain" || { echo "$2 is an invalid domain identifier (rc=-6)" >&2; exit 1; }
    rm "$here/domain"; kill -9 "$(cat "$here/qemu")"; exit 0;;
esac
"""
LIST = """
[ -e "$here/vif" ] || { echo "xenstore-ls: xs_directory ($2): No such file or directory" >&2; exit 1; }
n=$(cat "$here/devid")
echo "$2/$n = \\"\\""
echo "$2/$n/mac = \\"$(cat "$here/vif")\\""
[ -s "$here/joined" ] && echo "$2/$n/hotplug-status = \\"connected\\"" || true
"""
READ = 'case $1 in */tty) echo "$here/tty";; */name) echo second;; */state) echo 4;; esac'


def config(path: Path, **how: Any) -> MachineConfig:
    (path / "kernel").write_bytes(b"kernel")
    return MachineConfig(
        **{"name": "a", "directory": path / "a", "vcpus": 2, "memory": 256 * MIB, "kernel": path / "kernel",
           "initramfs": path / "kernel", **how}
    )  # fmt: skip


def stand_ins(path: Path, monkeypatch: pytest.MonkeyPatch, call: str = 'conn.send(b"\\0")') -> None:
    """Xen's tools, and a host that says to be its dom0."""
    (path / "bin").mkdir()
    scripts = {"xl": XL.replace("INFO", INFO).replace("CALL", call), "xenstore-read": READ,
               "xenstore-ls": LIST, "xenstore-write": 'echo "$@" >>"$here/written"'}  # fmt: skip
    for name, script in scripts.items():
        (path / "bin" / name).write_text(f"#!/bin/sh\nexport here={path}\n{script}\n")
        (path / "bin" / name).chmod(0o755)
    (path / "capabilities").write_text("control_d\n")
    monkeypatch.setattr(tools, "_CAPABILITIES", path / "capabilities")
    monkeypatch.setattr(os, "geteuid", lambda: 0) if os.getuid() else None
    monkeypatch.setenv("PATH", f"{path}/bin:{os.environ['PATH']}")


# -- its description ----------------------------------------------------------------


def test_a_machine_as_a_domain(tmp_path: Path) -> None:
    given = (Disk("image", tmp_path / "image", read_only=True), Disk("scratch", tmp_path / "scratch", read_only=False))
    wanted = config(tmp_path, disks=given, networks=(TapNetwork("52:54:00:00:00:07", 3, "ht0"),))
    assert document.document(wanted, "hyper-a", ["/dev/loop3", "/dev/loop4"], "/bin/true").splitlines() == [
        'name = "hyper-a"',
        'type = "pvh"',
        "vcpus = 2",
        "memory = 256",
        f'kernel = "{tmp_path}/kernel"',
        f'ramdisk = "{tmp_path}/kernel"',
        'cmdline = "console=hvc0 quiet loglevel=3 panic=-1 pci=off hyper.channel=hvc:1"',
        'on_poweroff = "destroy"',
        'on_reboot = "destroy"',
        'on_crash = "destroy"',
        'on_watchdog = "destroy"',
        f'channel = [ "name=first, connection=socket, path={tmp_path}/a/first.sock", '
        f'"name=second, connection=socket, path={tmp_path}/a/second.sock" ]',
        'disk = [ "format=raw, vdev=xvda, access=ro, backendtype=phy, script=/bin/true, target=/dev/loop3", '
        '"format=raw, vdev=xvdb, access=rw, backendtype=phy, script=/bin/true, target=/dev/loop4" ]',
        'vif = [ "mac=52:54:00:00:00:07, script=/bin/true" ]',
    ]
    assert document.names(wanted) == {"image": "dev:xvda", "scratch": "dev:xvdb"}


@pytest.mark.parametrize(
    ("how", "why"),
    [
        ({"vcpus": 65}, "at most 64 processors"),
        ({"disks": tuple(Disk(f"d{n}", Path("/d"), read_only=True) for n in range(27))}, "at most 26 disks"),
        ({"directory": Path("/a,b")}, "cannot have a comma"),
        ({"initramfs": Path("/a'b\"c")}, "both kinds of quotes"),
        ({"kernel": Path("/a\nb")}, "a line break"),
        ({"kernel": Path("/a\\b")}, "a backslash"),
        ({"directory": Path("/a\nb")}, "a line break"),
    ],
)
def test_what_a_domain_cannot_be(tmp_path: Path, how: dict[str, Any], why: str) -> None:
    document.check(config(tmp_path, vcpus=64, kernel=Path("/it's")))
    with pytest.raises(InvalidArgument, match=f"driver 'xen' .*{why}"):
        document.check(config(tmp_path, **how))


def test_numbers_of_disks() -> None:
    assert [disks.number(n) for n in (0, 1, 15, 16, 25)] == [51712, 51728, 51952, (1 << 28) + 4096, (1 << 28) + 6400]


def test_a_loop_device_goes_with_who_has_it_open(tmp_path: Path) -> None:
    if os.geteuid() or not Path("/dev/loop-control").exists():
        pytest.skip("needs root, and loop devices")
    (tmp_path / "disk").write_bytes(b"contents" + bytes(4088))
    with contextlib.ExitStack() as held:
        made = disks.loops([Disk("d", tmp_path / "disk", read_only=True)], held)
        assert Path(made.paths[0]).read_bytes()[:8] == b"contents"
        with pytest.raises(OSError):
            Path(made.paths[0]).write_bytes(b"others")
        backing = Path("/sys/block", Path(made.paths[0]).name, "loop/backing_file")
        assert backing.read_text().strip() == str(tmp_path / "disk")
    assert not backing.exists() or backing.read_text().strip() != str(tmp_path / "disk")


async def test_a_disk_that_is_not_there(tmp_path: Path) -> None:
    with contextlib.ExitStack() as held, pytest.raises(Unavailable, match="nothing cannot be opened: No such file"):
        disks.loops([Disk("d", tmp_path / "nothing", read_only=True)], held)


# -- what is found ------------------------------------------------------------------


async def test_a_host_without_xen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    probe = await XenDriver(boot_timeout=1).probe()
    assert probe.trouble == "xl is not in the PATH" and "xen-system-amd64" in probe.hint
    with pytest.raises(Unavailable, match="Xen makes no domain on this host: xl is not in the PATH"):
        await XenDriver(boot_timeout=1).launch(config(tmp_path))
    assert not (tmp_path / "a").exists() and XenDriver(boot_timeout=1).version == ""


async def test_a_host_below_no_xen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    (tmp_path / "capabilities").unlink()
    assert (await XenDriver(boot_timeout=1).probe()).trouble == "this host is not the dom0 of a Xen hypervisor"


async def test_what_xl_says_of_the_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    one = XenDriver(boot_timeout=1)
    assert (await one.probe()).trouble == "" and one.version == "4.17.7"
    monkeypatch.setattr(driver, "ask", lambda *_: "xen_version : 4.17.7\nvirt_caps : pv\n")
    assert "no virtualization that Xen uses" in (await XenDriver(boot_timeout=1).probe()).trouble


async def test_an_xl_that_does_not_answer_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where xenstored stands still it is asked again, but not by hyperd's loop."""
    stand_ins(tmp_path, monkeypatch)
    answers, loops = ["", "", INFO.replace("\\n", "\n")], threading.current_thread()

    def ask(*_: str) -> str:
        assert threading.current_thread() is not loops
        return answers.pop(0)

    monkeypatch.setattr(driver, "ask", ask)
    one = XenDriver(boot_timeout=1)
    for _ in range(2):
        assert (await one.probe()).trouble == "`xl info` does not answer" and one.version == ""
    assert (await one.probe()).trouble == "" and one.version == "4.17.7" and answers == []


async def test_what_it_takes_of_dom0() -> None:
    """The guest's memory is the hypervisor's."""
    one: Footprint = XenDriver(boot_timeout=1)
    assert await one.footprint(1, 1 << 30, "") == await one.footprint(8, 1 << 40, "amd64")


# -- what is asked of the tools --------------------------------------------------------


async def test_an_error_of_a_tool_is_in_its_own_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    with pytest.raises(NotFound, match="zz is an invalid domain identifier"):
        await tools.ask("xl", "pause", "zz")
    assert await tools.destroy("zz", 60) == ""
    (tmp_path / "bin/xl").write_text("#!/bin/sh\necho 'libxl: error: no memory' >&2; echo more >&2; exit 3\n")
    with pytest.raises(Unavailable, match="`xl pause` failed: libxl: error: no memory$"):
        await tools.ask("xl", "pause", "zz")
    (tmp_path / "bin/xl").write_text("#!/bin/sh\nexec sleep 60\n")
    with pytest.raises(Unavailable, match="`xl pause` did not end within 0.2 s"):
        await tools.ask("xl", "pause", "zz", timeout=0.2)


# -- a domain -------------------------------------------------------------------------


async def test_a_domain_from_its_making_to_its_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    machine = await XenDriver(boot_timeout=60).launch(config(tmp_path))
    assert (tmp_path / "domain").read_text() == f"{machine.domain}\n" and machine.alive
    assert "/local/domain/7/device/console/1/limit 0" in (tmp_path / "written").read_text()
    machine.connect().close()
    await machine.pause()
    await machine.resume()
    again = await XenDriver(boot_timeout=60).reattach(machine.handle)
    assert again is not None and again.handle == machine.handle
    assert [m.handle["domain"] for m in XenDriver(boot_timeout=60).strays(tmp_path, set())] == [machine.domain]
    await asyncio.gather(machine.kill(), again.kill())
    assert not machine.alive and not (tmp_path / "domain").exists()
    with pytest.raises(Unavailable):
        machine.connect()
    with pytest.raises(Unavailable, match="has ended"):
        await machine.pause()
    assert await XenDriver(boot_timeout=60).reattach(machine.handle) is None


async def test_a_domain_whose_xl_was_killed_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody else would free what it has."""
    stand_ins(tmp_path, monkeypatch)
    machine = await XenDriver(boot_timeout=60).launch(config(tmp_path))
    process.kill(machine.pid, machine.pid_started)
    await machine.wait()
    assert machine._tidying is not None
    await asyncio.wait_for(machine._tidying, 60)
    assert not (tmp_path / "domain").exists()


async def test_an_xl_that_stands_still_holds_up_a_kill_no_longer_than_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline of all drivers, however often xl is asked; once it answers, the domain is ended."""
    stand_ins(tmp_path, monkeypatch)
    monkeypatch.setattr(tools, "_AGAIN", 0)
    machine = await XenDriver(boot_timeout=60).launch(config(tmp_path))
    waited: list[float] = []
    destroy = tools.destroy

    async def stands_still(domain: str, timeout: float) -> str:
        waited.append(timeout)
        return "it did not end" if len(waited) < 4 else await destroy(domain, timeout)

    monkeypatch.setattr(tools, "destroy", stands_still)
    await machine.kill()
    assert sum(waited[:2]) <= deadlines.DEATH  # the rest is when nobody waits for it any more
    await asyncio.wait_for(machine.wait(), 60)
    assert machine._owed is not None
    await asyncio.wait_for(machine._owed, 60)
    assert not (tmp_path / "domain").exists()


async def test_an_xl_that_outlives_its_domain_holds_up_a_kill_no_longer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stand_ins(tmp_path, monkeypatch)
    machine = await XenDriver(boot_timeout=60).launch(config(tmp_path))
    clock = asyncio.get_running_loop().time
    waited, late, until = list[float](), list[float](), list[float]()

    async def ends_the_domain_alone(_: str, timeout: float) -> str:
        waited.append(timeout)
        late.append(clock() + timeout)
        return ""

    async def ends(by: float) -> bool:
        until.append(by)
        return False

    monkeypatch.setattr(tools, "destroy", ends_the_domain_alone)
    monkeypatch.setattr(machine, "_ends", ends)
    await machine.kill()
    assert until[0] <= late[0] and sum(waited) <= deadlines.DEATH
    await asyncio.wait_for(machine.wait(), 60)


async def test_an_xl_that_is_slow_is_not_ended_in_its_midst(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    machine = await XenDriver(boot_timeout=60).launch(config(tmp_path))
    os.mkfifo(tmp_path / "go-on")
    text = (tmp_path / "bin/xl").read_text()
    (tmp_path / "bin/xl").write_text(text.replace("destroy)\n", 'destroy)\n    read -r _ <"$here/go-on"\n'))
    assert "did not end within 0.1 s" in await tools.destroy(machine.domain, 0.1)
    (going,) = tools._asking
    await asyncio.to_thread((tmp_path / "go-on").write_text, "now\n")
    assert await asyncio.wait_for(going, 60) == "" and not (tmp_path / "domain").exists()
    (tmp_path / "bin/xl").write_text(text)
    await machine.kill()


async def test_a_domain_without_its_xl_is_found_by_its_qemu(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    machine = await XenDriver(boot_timeout=60).launch(config(tmp_path))
    machine.detach()
    assert XenDriver(boot_timeout=60).strays(tmp_path, {machine.directory}) == []
    process.kill(machine.pid, machine.pid_started)
    await machine.wait()
    (left,) = XenDriver(boot_timeout=60).strays(tmp_path, set())
    assert left.pid == int((tmp_path / "qemu").read_text()) and left.handle["domain"] == machine.domain
    await left.kill()
    assert not (tmp_path / "domain").exists()


async def test_what_libxl_keeps_of_a_domain_goes_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    monkeypatch.setattr(tools, "_LOGS", tmp_path)
    machine = await XenDriver(boot_timeout=60).launch(config(tmp_path))
    for name in (machine.domain, "another"):
        (tmp_path / f"qemu-dm-{name}.log").touch()
    await machine.kill()
    assert [path.name for path in tmp_path.glob("*.log")] == ["qemu-dm-another.log"]


class LoopsOfNothing:
    """In the place of `disks.Loops`."""

    paths = ("/dev/loop9",)
    fails = False

    async def hand_over(self, domid: int, place: int) -> None:
        if self.fails:
            raise Unavailable(f"blkback of {domid} opened no {place}")


async def test_disks_that_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    made = LoopsOfNothing()
    monkeypatch.setattr(xen_machine, "loops", lambda *_: made)
    one = XenMachine(tmp_path, Started(1, 2), "hyper-a", {"image": "dev:xvda", "more": "dev:xvdc"})
    await one.add_disk(Disk("late", tmp_path / "late", read_only=True))
    assert one.names["late"] == "dev:xvdb" and XenMachine.of(one.handle).names == one.names
    await one.remove_disk("late")
    await one.remove_disk("late")
    await one.add_disk(Disk("later", tmp_path / "later", read_only=False))
    made.fails = True
    with pytest.raises(Unavailable, match="blkback of 7 opened no 4"):
        await one.add_disk(Disk("broken", tmp_path / "broken", read_only=False))
    assert one.names == {"image": "dev:xvda", "more": "dev:xvdc", "later": "dev:xvdd"}
    true = tools.binary("true")
    assert (tmp_path / "plugged").read_text().splitlines() == [
        f"hyper-a format=raw, vdev=xvdb, access=ro, backendtype=phy, script={true}, target=/dev/loop9",
        "hyper-a xvdb",
        f"hyper-a format=raw, vdev=xvdd, access=rw, backendtype=phy, script={true}, target=/dev/loop9",
        f"hyper-a format=raw, vdev=xvde, access=rw, backendtype=phy, script={true}, target=/dev/loop9",
        "hyper-a xvde --force",
    ]


async def test_a_domain_that_is_full_of_disks(tmp_path: Path) -> None:
    one = XenMachine(tmp_path, Started(1, 2), "hyper-a", {str(n): document.found_by(n) for n in range(document.DISKS)})
    with pytest.raises(InvalidState, match="driver 'xen' has at most 26 disks"):
        await one.add_disk(Disk("late", tmp_path / "late", read_only=True))


async def test_network_interfaces_that_come_and_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that did not come to be is taken out again; what an earlier daemon has half done is found."""
    stand_ins(tmp_path, monkeypatch)
    monkeypatch.setattr(vifs, "_DEVICE", f"{tmp_path}/{{domid}}-{{number}}")
    joined: list[tuple[int, dict[int, TapNetwork]]] = []

    async def take_over(domid: int, nics: dict[int, TapNetwork]) -> None:
        if (tmp_path / "joined").exists():
            raise Unavailable("the network interface of a domain finds no place")
        joined.append((domid, nics))
        (tmp_path / "joined").write_text("yes")

    monkeypatch.setattr(vifs, "take_over", take_over)
    one = XenMachine(tmp_path, Started(1, 2), "hyper-a", {}, ["52:54:00:00:00:07", "52:54:00:00:00:08"])
    tap = TapNetwork("52:54:00:00:00:09", 3, "ht1")
    await one.pull_out(1)
    assert not await one.plugged(1) and XenMachine.of(one.handle).macs == one.macs
    await one.plug_in(1, tap)
    number = int((tmp_path / "devid").read_text())
    assert await one.plugged(1) and joined == [(7, {number: tap})]
    with pytest.raises(Unavailable, match="network interface 1 leads somewhere"):
        await one.plug_in(1, tap)
    await one.pull_out(1)
    await one.pull_out(1)
    with pytest.raises(Unavailable, match="finds no place"):
        await one.plug_in(1, tap)
    (tmp_path / "joined").unlink()
    assert int((tmp_path / "devid").read_text()) != number  # the guest may have the first one yet
    (tmp_path / "vif").write_text("52:54:00:00:00:08")
    assert not await one.plugged(1)
    await one.pull_out(1)
    (tmp_path / "refuses").touch()
    with pytest.raises(Unavailable, match="`xl network-attach` failed: libxl: error: no"):
        await one.plug_in(1, tap)
    come = f"network-attach hyper-a mac=52:54:00:00:00:08 script={tools.binary('true')}"
    gone = "network-detach hyper-a 52:54:00:00:00:08"
    asked = [line.partition(" devid=")[0] for line in (tmp_path / "plugged").read_text().splitlines()]
    assert asked == [come, gone, come, gone, gone, come]


async def test_without_a_daemon_it_is_the_next_that_ends_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    machine = await XenDriver(boot_timeout=60).launch(config(tmp_path))
    machine.detach()
    process.kill(machine.pid, machine.pid_started)
    await machine.wait()
    assert machine._tidying is None and (tmp_path / "domain").exists()
    assert await XenDriver(boot_timeout=60).reattach(machine.handle) is None
    assert not (tmp_path / "domain").exists()


async def test_a_guest_that_does_not_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch, call="pass")
    join = XenDriver._join

    async def join_and_wait_no_more(self: XenDriver, machine: XenMachine, domid: int) -> None:
        await join(self, machine, domid)
        self._boot_timeout = 0.2

    monkeypatch.setattr(XenDriver, "_join", join_and_wait_no_more)
    with pytest.raises(Unavailable, match="did not come up within 0.2 s: .*Waiting for domain a "):
        await XenDriver(boot_timeout=60).launch(config(tmp_path))
    assert not (tmp_path / "domain").exists()


async def test_xl_makes_no_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stand_ins(tmp_path, monkeypatch)
    text = (tmp_path / "bin/xl").read_text()
    text = text.replace("name=$(sed", "echo 'libxl: error: failed to free memory'; exit 3; x=$(sed")
    (tmp_path / "bin/xl").write_text(text)
    with pytest.raises(Unavailable, match="xl made no domain: libxl: error: failed to free memory"):
        await XenDriver(boot_timeout=60).launch(config(tmp_path))


def test_a_machine_is_what_its_handle_says(tmp_path: Path) -> None:
    machine = XenMachine(tmp_path, Started(1, 2), "hyper-a", {"image": "dev:xvda"})
    assert XenMachine.of(machine.handle).handle == machine.handle
    with pytest.raises(Unavailable), socket.socket():
        machine.connect()
