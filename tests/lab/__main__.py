# SPDX-License-Identifier: Apache-2.0
"""Run tests in the lab machine, the vm tier if none are named; or any command, as scripts/lab does."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import shlex
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from hypercontainer.kernel.locate import locate
from tests.vm import calls

from .firecracker import firecracker
from .image import REPOSITORY, Image, image
from .lookout import Lookout, waited_for_processor

MEMORY = "5G"
CPUS = "1"  # with two, QEMU 7.2 may miss what one of them changes of the code of both: docs/development.md
DEADLINE = 3 * 3600.0  # seconds for a run; an emulated machine in an emulated machine is slow
TIMEOUT = 1200  # seconds for a test
# `no_timer_check`: on a busy host the emulated timer is not as quick as the kernel expects, which gives up then.
_ARGUMENTS = (
    "root=/dev/vda ro rootfstype=ext4 init=/init console=ttyS0 quiet panic=-1 mitigations=off net.ifnames=0 "
    "no_timer_check"
)  # fmt: skip
_XEN = "console=com1 com1=115200 dom0_mem=3G,max:3G loglvl=warning guest_loglvl=warning noreboot=0"
# With `max` Xen's dom0 crashes at once in QEMU 7.2; this one has what PVH domains need, SVM and nested pages. RDTSCP
# of a domain would come to Xen as RDTSC, whose instruction it does not find there.
# A clock that counts instructions takes a nanosecond for each byte of `rep movsb`, by which the kernel and the C
# library copy where a processor says that it is quick (ERMS); the eight bytes of `movsq` are nearer to a real one.
_PROCESSORS = {"kvm": "max,erms=off,fsrm=off", "xen": "Opteron_G3,+svm,+npt,-rdtscp"}
# Two network interfaces on one cable: the second, 0000:00:11.0, is behind the IOMMU, to be handed over.
_IOMMU = [
    "-device", "intel-iommu,intremap=on",
    "-netdev", "hubport,hubid=1,id=here", "-device", "virtio-net-pci,netdev=here,mac=52:54:00:00:00:10,addr=0x10",
    "-netdev", "hubport,hubid=1,id=there",
    "-device", "virtio-net-pci,netdev=there,mac=52:54:00:00:00:11,addr=0x11,disable-legacy=on,iommu_platform=on",
]  # fmt: skip
# Each instruction takes a nanosecond of the machine's time: what its programs wait for at most, and what a bench
# measures, do not depend on how much of a processor its QEMU gets. Time in which it has nothing to do is ours.
_COUNTED = ["-accel", "tcg,thread=single,tb-size=512", "-icount", "shift=0,sleep=on"]
_OURS = ["-accel", "tcg,thread=multi,tb-size=512"]  # of that with an IOMMU, where the first was not tried
_ENDED = re.compile(rb"lab: ended with (\d+)")
_NO_END, _TOO_LATE, _HUNG = 98, 97, 96  # exit statuses: the machine ended by itself; the deadline; a guest hung
_TOO_BUSY = 95  # the deadline, most of which the machine waited for a processor of its host
_NO_MACHINE = 94  # its image, or what goes in with the tree, was not to be had
_AGAIN = {_HUNG, os.EX_TEMPFAIL}  # the second is of what ran there: each time a guest hung
_OF_THE_LAB = {*_AGAIN, _NO_MACHINE, _TOO_BUSY, _TOO_LATE, _NO_END}  # what ran there had no end of its own
_WAITED = 0.5  # of the deadline, in which the machine waited for a processor of its host: it was no failure of what ran


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.lab", description=__doc__)
    parser.add_argument("--deadline", type=float, default=DEADLINE, metavar="SECONDS")
    parser.add_argument(
        "--tries", type=int, default=1, metavar="N", help="of a run that ends because the emulator hung a guest"
    )
    parser.add_argument(
        "--lenient",
        action="store_true",
        help="exit status 0 of a machine that cannot be made, hung, ended by itself, or met the deadline",
    )
    parser.add_argument("--shell", action="store_true", help="no tests: a shell in the machine")
    parser.add_argument("--run", action="store_true", help="no tests: the arguments are a command")
    parser.add_argument("--xen", action="store_true", help="the machine whose hypervisor is Xen, not that with KVM")
    parser.add_argument("--iommu", action="store_true", help="it has an IOMMU, and a network interface to hand over")
    parser.add_argument(
        "--keep", type=Path, metavar="DIRECTORY", help="for logs and sockets, instead of a temporary one"
    )
    parser.add_argument("arguments", nargs=argparse.REMAINDER, metavar="ARGUMENT", help="of pytest; the command")
    options = parser.parse_args()
    status = _play(parser, options)
    if options.lenient and status in _OF_THE_LAB:
        _say("inconclusive: what is said above is not of what was tried")
        return 0
    return status


def _play(parser: argparse.ArgumentParser, options: argparse.Namespace) -> int:
    """:return: an exit status, the machine's own among them."""
    with contextlib.ExitStack() as stack:
        work = options.keep or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="lab-")))
        work.mkdir(exist_ok=True)
        wanted = options.arguments if options.run else command(options.arguments, shell=options.shell)
        if not wanted:
            parser.error("--run takes a command")
        try:
            files = image("xen" if options.xen else "kvm")
            pack(work / "tree.tar", wanted)
        except (subprocess.CalledProcessError, OSError) as error:
            _say(f"the machine cannot be made: {error}")
            return _NO_MACHINE
        status = run(files, work, options.deadline, iommu=options.iommu)
        for _ in range(options.tries - 1):
            if status in _AGAIN:
                _say("once more")
                status = run(files, work, options.deadline, iommu=options.iommu)
        return status


def command(arguments: list[str], *, shell: bool) -> list[str]:
    """What the machine does."""
    if shell:
        return ["sleep", "infinity"]
    named = [a for a in arguments if a != "--"]
    wanted = named if any(a.startswith("tests") for a in named) else ["tests/vm", *named]
    return [
        "python3",
        "-m",
        "pytest",
        "-q",
        "-p",
        "tests.lab.watch",
        "-p",
        "no:cacheprovider",
        "--color=no",
        f"-otimeout={TIMEOUT}",
        *wanted,
    ]


def pack(path: Path, command: list[str]) -> None:
    """The tree as it is now, with what is built of it, and what to do: the machine's second disk is this file."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=REPOSITORY, capture_output=True, check=True,
    )  # fmt: skip
    kernel = locate().path.parent
    with tarfile.open(path, "w") as tar:
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (REPOSITORY / name).exists():
                tar.add(REPOSITORY / name, name)
        for built in ("src/hypercontainer/guest/bin", "src/hypercontainer/jail/bin"):
            tar.add(REPOSITORY / built, built)
        tar.add(kernel, f".cache/kernel/{kernel.name}")
        tar.add(firecracker(), ".lab-bin/firecracker")
        for program in map(calls.build, calls.MACHINES):
            tar.add(program, f".cache/calls/{program.name}")
        text = shlex.join(command).encode()
        member = tarfile.TarInfo(".lab-command")
        member.size = len(text)
        tar.addfile(member, io.BytesIO(text))
    with open(path, "ab") as f:  # a disk has whole sectors
        f.truncate(-(-f.tell() // 4096) * 4096)


def machine(files: Image, work: Path, *, iommu: bool = False) -> list[str]:
    """QEMU's command line. AMD's virtualization is emulated too; what is written goes with the machine."""
    kind = "xen" if files.hypervisor else "kvm"
    asked = f"socket,id=shell,path={work}/shell.sock,server=on,wait=off"
    return [
        "setpriv", "--pdeathsig", "KILL",  # it ends with us, however we do
        "qemu-system-x86_64",
        "-machine", "q35", *(_OURS if iommu else _COUNTED),
        "-cpu", _PROCESSORS[kind], "-smp", CPUS, "-m", MEMORY,
        "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot",
        *(_IOMMU if iommu else []),
        *boot(files, "intel_iommu=on" if iommu else ""),
        "-drive", f"if=virtio,format=raw,file={files.disk},snapshot=on",
        "-drive", f"if=virtio,format=raw,file={work}/tree.tar,read-only=on",
        "-nic", "user,model=virtio-net-pci,restrict=on",
        "-object", "rng-random,id=rng,filename=/dev/urandom", "-device", "virtio-rng-pci,rng=rng",
        "-serial", f"file:{work}/console.log",
        "-monitor", f"unix:{work}/monitor.sock,server=on,wait=off",
        "-device", "virtio-serial-pci",
        "-chardev", "stdio,id=out,signal=off", "-device", "virtconsole,chardev=out",
        "-chardev", asked, "-device", "virtconsole,chardev=shell",
        "-qmp", f"unix:{work}/qmp.sock,server=on,wait=off",
        "-chardev", f"socket,id=ending,path={work}/ending.sock,server=on,wait=off",
        "-device", "virtserialport,chardev=ending,name=lab.ending",
    ]  # fmt: skip


def boot(files: Image, further: str = "") -> list[str]:
    """Xen is a kernel of multiboot: its dom0's kernel and initramfs are its modules."""
    if files.hypervisor is None:
        arguments = f"{_ARGUMENTS} {further}".strip()
        return ["-kernel", str(files.kernel), "-initrd", str(files.initramfs), "-append", arguments]
    dom0 = _ARGUMENTS.replace("console=ttyS0", "console=hvc0")
    modules = f"{files.kernel} {dom0.replace(',', ',,')},{files.initramfs}"
    return ["-kernel", str(files.hypervisor), "-initrd", modules, "-append", _XEN]


def run(files: Image, work: Path, deadline: float, *, iommu: bool = False) -> int:
    """:return: the exit status of what ran in the machine."""
    environment = {**os.environ, "TMPDIR": str(work)}  # where the snapshot is written
    process = subprocess.Popen(
        machine(files, work, iommu=iommu),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, env=environment, start_new_session=True,
    )  # fmt: skip
    _say(f"for a shell in the machine: socat -,rawer UNIX:{work}/shell.sock")
    alarm, lookout = _Alarm(process, deadline), Lookout(work, process, _say)
    assert process.stdout is not None
    with process.stdout as output, lookout.looking(), _ended(process), alarm.set():
        status = _pass_on(output)
        process.wait()
    if alarm.rang:
        _say(f"not done within {deadline:g} s; for {alarm.waited:.0f} of them it waited for a processor")
        return _TOO_BUSY if alarm.waited >= _WAITED * deadline else _TOO_LATE
    if lookout.gave_up:
        return _HUNG
    if status == _NO_END:
        _say(f"the machine ended by itself; its console's last words:\n{_tail(work / 'console.log')}")
    return status


def _pass_on(output: IO[bytes]) -> int:
    """What the machine prints, until it is gone; the exit status of what ran in it."""
    status = _NO_END
    for line in output:
        found = _ENDED.search(line)
        sys.stdout.buffer.write(line[: found.start()] if found else line.replace(b"\r\n", b"\n"))
        sys.stdout.flush()
        if found:
            status = int(found[1])
    return status


@contextlib.contextmanager
def _ended(process: subprocess.Popen[bytes]) -> Iterator[None]:
    """Whatever happens here, the machine is gone afterwards."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        yield
    finally:
        process.kill()
        process.wait()


class _Alarm:
    """Ends the machine at its deadline."""

    def __init__(self, process: subprocess.Popen[bytes], deadline: float) -> None:
        self._process, self._deadline = process, deadline
        self.rang = False
        self.waited = 0.0  # seconds that the machine's processor could have gone on and had none of this host's

    @contextlib.contextmanager
    def set(self) -> Iterator[None]:
        timer = threading.Timer(self._deadline, self._ring)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def _ring(self) -> None:
        self.rang, self.waited = True, waited_for_processor(self._process.pid)
        self._process.kill()


def _say(text: str) -> None:
    """What is not the machine's output."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def _tail(path: Path) -> str:
    with contextlib.suppress(OSError):
        return "\n".join(path.read_text(errors="replace").splitlines()[-20:])
    return ""


if __name__ == "__main__":
    sys.exit(main())
