# SPDX-License-Identifier: Apache-2.0
"""A libvirtd of a test's own: root's, with directories, users, devices and a network that no other has."""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hypercontainer.hypervisor.xen import tools

_SLOWNESS = float(os.environ.get("HYPER_TEST_SLOWNESS", "1"))
_START = 60.0 * _SLOWNESS  # seconds
_END = 30.0 * _SLOWNESS
_PLACES = {"run": "/run/libvirt", "etc": "/etc/libvirt", "lib": "/var/lib/libvirt", "cache": "/var/cache/libvirt",
           "log": "/var/log/libvirt"}  # fmt: skip
_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "net/tun")
# /dev/kvm is there only if libvirt-qemu may open it: else libvirt asks QEMU anew at each start what it can, for half a
# minute.
_SCRIPT = """
set -e
cd "$1"
for place in {places}; do
    mkdir -p "${{place%%:*}}" "${{place#*:}}"
    mount --bind "${{place%%:*}}" "${{place#*:}}"
done
(cat /etc/passwd; echo "libvirt-qemu:x:64055:64055::/:/usr/sbin/nologin") >passwd
(cat /etc/group; echo "libvirt-qemu:x:64055:"; echo "kvm:x:64056:") >group
mount --bind passwd /etc/passwd
mount --bind group /etc/group
mkdir dev
mount -t tmpfs none dev
mkdir dev/net dev/pts dev/shm
for device in {devices}; do cp -a "/dev/$device" "dev/$device"; done
[ "$(stat -c %a /dev/kvm 2>&1)" != 666 ] || cp -a /dev/kvm dev/kvm
mount --bind /dev/pts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
umount --recursive --lazy /dev
mount --move dev /dev
# A libvirtd that is killed leaves the control groups of machines that end meanwhile.
umount --recursive --lazy /sys/fs/cgroup || true
ip link set lo up
exec libvirtd --daemon --pid-file "$1/libvirtd.pid" -f /etc/libvirt/libvirtd.conf
"""


def missing() -> str:
    """Why there can be none; "" when there can."""
    if os.geteuid() != 0:
        return "it takes root: a libvirtd in namespaces of its own"
    if not shutil.which("libvirtd") or not shutil.which("qemu-system-x86_64"):
        return "it takes the packages libvirt-daemon, libvirt-daemon-driver-qemu and qemu-system-x86"
    return ""


class Libvirtd:
    """In a directory, which its owner removes afterwards."""

    _hypervisor = "qemu"

    def __init__(self, directory: Path, *, space: str = "") -> None:
        """`space` is the file of the network namespace that it is in; "" is one of its own."""
        self._directory = directory
        network = ["nsenter", f"--net={space}", "unshare"] if space else ["unshare", "--net"]
        self._enter = [*network, "--mount", "--propagation", "private"]
        self.pid = 0

    @property
    def uri(self) -> str:
        return f"{self._hypervisor}+unix:///system?socket={self._directory}/run/libvirt-sock"

    @property
    def log(self) -> Path:
        """Of what it says."""
        return self._directory / "libvirtd.log"

    @property
    def logs(self) -> Path:
        """Of its machines."""
        return self._directory / "log" / "qemu"

    def start(self) -> None:
        """Returns when it takes connections."""
        (self._directory / "etc").mkdir(exist_ok=True)
        (self._directory / "etc" / "libvirtd.conf").write_text(
            'auth_unix_rw = "none"\nunix_sock_rw_perms = "0700"\n'
            f'log_outputs = "2:file:{self.log}"\n'
        )  # fmt: skip
        (self._directory / "etc" / "qemu.conf").write_text('stdio_handler = "file"\nsecurity_driver = "none"\n')
        script = _SCRIPT.format(places=" ".join(f"{a}:{b}" for a, b in _PLACES.items()), devices=" ".join(_DEVICES))
        subprocess.run(
            [*self._enter, "sh", "-c", script, "libvirtd", str(self._directory)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=_START,
        )  # fmt: skip
        self.pid = int((self._directory / "libvirtd.pid").read_text())

    def end(self, how: signal.Signals = signal.SIGTERM) -> None:
        """Idempotent; machines go on. One that does not end is killed."""
        if not self.pid:
            return
        gone = os.pidfd_open(self.pid)
        try:
            signal.pidfd_send_signal(gone, how)
            if not select.select([gone], [], [], _END)[0]:
                signal.pidfd_send_signal(gone, signal.SIGKILL)
                select.select([gone], [], [], _END)
        finally:
            os.close(gone)
            self.pid = 0
        shutil.rmtree(self._directory / "dev", ignore_errors=True)

    def domains(self) -> list[str]:
        """Names of all that it has, running or not."""
        listed = subprocess.run(
            ["virsh", "-q", "-c", self.uri, "list", "--all", "--name"], capture_output=True, text=True, check=True,
            timeout=_START,
        )  # fmt: skip
        return [name for name in listed.stdout.split() if name != "Domain-0"]


class Dom0Libvirtd(Libvirtd):
    """That of a dom0, in no namespace of its own: libxl, Xen's scripts and its domains are the host's."""

    _hypervisor = "xen"

    def start(self) -> None:
        """Returns when it takes connections."""
        (self._directory / "run").mkdir(exist_ok=True)
        settings = self._directory / "libvirtd.conf"
        settings.write_text(
            f'unix_sock_dir = "{self._directory}/run"\nauth_unix_rw = "none"\nlog_outputs = "2:file:{self.log}"\n'
        )
        pidfile = self._directory / "libvirtd.pid"
        subprocess.run(
            ["libvirtd", "--daemon", "--pid-file", str(pidfile), "-f", str(settings)],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True, timeout=_START,
        )  # fmt: skip
        self.pid = int(pidfile.read_text())


@contextlib.contextmanager
def running(directory: Path, space: str) -> Iterator[Libvirtd]:
    """One in this network namespace, by name, or this dom0's, while the block runs; no machine of its may be left then.

    :raise RuntimeError: one is.
    """
    directory.mkdir()
    made = Dom0Libvirtd(directory) if tools.is_dom0() else Libvirtd(directory, space=f"/run/netns/{space}")
    made.start()
    try:
        yield made
        if left := made.domains():
            raise RuntimeError(f"libvirt has {left} yet")
    finally:
        made.end()
