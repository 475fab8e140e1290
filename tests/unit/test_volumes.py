# SPDX-License-Identifier: Apache-2.0
"""Mounts as people write them, nftables' bytes, NFS options, shared directories."""

from __future__ import annotations

import os
import struct
import subprocess
from pathlib import Path

import pytest

from hypercontainer.docker import container_config_view
from hypercontainer.engine.guest_mounts import nfs_source
from hypercontainer.engine.services import firewall_batch
from hypercontainer.errors import InvalidArgument, NotFound, Unsupported
from hypercontainer.model.mounts import parse_mount, parse_tmpfs, parse_volume
from hypercontainer.model.pods import PodSpec, Service, ServiceBackend, WhiteLists
from hypercontainer.model.specs import ContainerSpec, Mount, PortMapping
from hypercontainer.model.status import Pod, PodVolume
from hypercontainer.model.units import parse_duration
from hypercontainer.protocol import nftables
from hypercontainer.volumes import share
from hypercontainer.volumes.disks import check


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("/data", Mount(target="/data")),
        ("name:/data", Mount(target="/data", source="name")),
        ("name:/data:ro", Mount(target="/data", source="name", read_only=True)),
        ("/host:/data", Mount(target="/data", source="/host", type="bind")),
        ("/host:/data/:ro,z", Mount(target="/data", source="/host", type="bind", read_only=True)),
        ("name:/data:nocopy", Mount(target="/data", source="name", copy_up=False)),
        ("/host:/data:private", Mount(target="/data", source="/host", type="bind")),
        (
            "/host:/data:ro,slave",
            Mount(target="/data", source="/host", type="bind", read_only=True, propagation="rslave"),
        ),
    ],
)
def test_short_volumes(text: str, mount: Mount) -> None:
    assert parse_volume(text) == mount


def test_relative_paths_are_this_directorys() -> None:
    assert parse_volume("./x:/x").source == os.path.abspath("x")


@pytest.mark.parametrize("text", ["/a:/b:ro,rslave", "/a:/b:rslave", "/a:/b", "v:/b:ro,nocopy"])
def test_what_docker_is_told_of_a_mount_makes_it_again(text: str) -> None:
    spec = ContainerSpec(image="x", mounts=[parse_volume(text)])
    assert container_config_view._asked(spec)["Binds"] == [text]


@pytest.mark.parametrize("text", ["", "data", "a:b", "a:/b:wrong", ":/x", "a:/b:ro:rw"])
def test_bad_short_volumes(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid volume"):
        parse_volume(text)


def test_long_mounts() -> None:
    assert parse_mount("type=bind,source=/a,target=/b,readonly") == Mount(
        target="/b", source="/a", type="bind", read_only=True
    )
    assert parse_mount("src=n,dst=/b,volume-subpath=s,volume-nocopy") == Mount(
        target="/b", source="n", sub_path="s", copy_up=False
    )
    assert parse_mount("type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=700") == Mount(
        target="/t", type="tmpfs", size=1 << 20, mode=0o700
    )
    for text, says in (
        ("target=/x,nosuch=1", "unknown key 'nosuch'"),
        ("type=bind", "no target"),
        ("type=npipe,target=/x", "unknown type 'npipe'"),
        ("type=bind,source=/a,target=/x,bind-propagation=no", "invalid propagation 'no'"),
        ("type=volume,target=/x,bind-propagation=rslave", "unknown key 'bind-propagation'"),
    ):
        with pytest.raises(InvalidArgument, match=says):
            parse_mount(text)


def test_how_far_mounts_below_a_directory_come() -> None:
    assert parse_mount("type=bind,source=/a,target=/b,bind-propagation=slave").propagation == "rslave"
    assert not parse_mount("type=bind,source=/a,target=/b,bind-propagation=rprivate").propagation
    for word in ("shared", "rshared"):
        for parse, text in ((parse_volume, f"/a:/b:ro,{word}"),
                            (parse_mount, f"type=bind,source=/a,target=/b,bind-propagation={word}")):  # fmt: skip
            with pytest.raises(Unsupported, match=f"{word}: what is mounted in a virtual machine does not come to"):
                parse(text)
    with pytest.raises(InvalidArgument, match="invalid propagation 'private,rslave'"):
        parse_volume("/a:/b:private,rslave")


def test_tmpfs() -> None:
    assert parse_tmpfs("/t:size=2m,mode=755,ro,noexec") == Mount(
        target="/t", type="tmpfs", size=2 << 20, mode=0o755, read_only=True
    )
    with pytest.raises(InvalidArgument, match="unknown tmpfs option"):
        parse_tmpfs("/t:nosuch")
    owned = parse_tmpfs("/t:uid=5,gid=6")
    assert (owned.uid, owned.gid) == (5, 6)
    for wrong in ("uid=x", "gid=-1", "uid=4294967295"):
        with pytest.raises(InvalidArgument, match="give the number of a user or group"):
            parse_tmpfs(f"/t:{wrong}")


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("1m30s", 90), ("500ms", 0.5), ("2h", 7200), (7, 7), ("1.5", 1.5)]
)
def test_durations(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == seconds


def test_volume_kinds() -> None:
    for size, fstype, format_, says in (
        (1, "ext4", "raw", "too small"),
        (1 << 30, "ntfs", "raw", "unknown file system"),
        (1 << 30, "xfs", "vmdk", "unknown disk format"),
    ):
        with pytest.raises(InvalidArgument, match=says):
            check(size, fstype, format_)


# -- nftables --------------------------------------------------------------------------


def messages(batch: bytes) -> list[tuple[int, int, bytes]]:
    """(type, flags, body after nfgenmsg) of each message; lengths must add up."""
    found, at = [], 0
    while at < len(batch):
        size, kind, flags = struct.unpack_from("<IHH", batch, at)
        found.append((kind, flags, batch[at + 20 : at + size]))
        at += size
    assert at == len(batch)
    return found


def test_a_ruleset_is_one_transaction() -> None:
    rule = nftables.in_network("destination", "10.1.2.3") + nftables.accept()
    found = messages(nftables.replace_table("t", [nftables.Chain("input", "filter", 0, rules=[rule])]))
    kinds = [kind for kind, _, _ in found]
    assert kinds == [0x10, 0xA00, 0xA02, 0xA00, 0xA03, 0xA06, 0x11]  # begin, new, delete, new table, chain, rule, end
    assert bytes([10, 1, 2, 3]) in found[5][2] and b"cmp\0" in found[5][2]


def test_the_host_kernel_takes_what_we_encode() -> None:
    """`nft` reads the rules back, in a network namespace of the test's own."""
    services = [
        Service(
            service_ip="10.254.0.1",
            service_port=80,
            hosts=[ServiceBackend(host_ip="127.0.0.1", host_port=p) for p in (1, 2)],
        ),
        Service(
            service_ip="fd00::1", service_port=53, protocol="udp", hosts=[ServiceBackend(host_ip="::1", host_port=5)]
        ),
    ]
    lists = WhiteLists(internal_networks=["10.0.0.0/8"], external_networks=["192.168.0.0/16"])
    pod = Pod(
        id="p",
        name="p",
        created_at="",
        hostname="p",
        vcpus=1,
        memory=1,
        ports=[PortMapping(container_port=80, host_port=8080)],
        spec=PodSpec(services=services, white_lists=lists),
    )
    if os.geteuid() != 0 or subprocess.run(["which", "nft"], capture_output=True, check=False).returncode:
        assert firewall_batch(pod)
        return
    program = (
        "import socket,sys,struct,subprocess\n"
        "s=socket.socket(socket.AF_NETLINK,socket.SOCK_RAW,12);s.setsockopt(socket.SOL_SOCKET,socket.SO_SNDBUF,1<<20)\n"
        "s.send(sys.stdin.buffer.read())\n"
        "s.setblocking(False)\n"
        "try:\n"
        "  while True:\n"
        "    d=s.recv(65536);n,t=struct.unpack_from('<IH',d);e=struct.unpack_from('<i',d,16)[0]\n"
        "    assert t==2 and e==0,(t,e)\n"
        "except BlockingIOError: pass\n"
        "print(subprocess.run(['nft','list','ruleset'],capture_output=True,text=True,check=True).stdout)"
    )
    import sys

    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", program], input=firewall_batch(pod), capture_output=True, check=False
    )
    listed = done.stdout.decode()
    assert done.returncode == 0, done.stderr.decode()
    assert "numgen inc mod 2 0 dnat ip to 127.0.0.1:1" in listed and "dnat ip to 127.0.0.1:2" in listed
    assert "ip6 daddr fd00::1" in listed and "dnat ip6 to [::1]:5" in listed and "masquerade" in listed
    assert "policy drop" in listed and "redirect to :80" in listed and "ip saddr 10.0.0.0/8" in listed


# -- NFS and shared directories ----------------------------------------------------------


async def test_nfs_sources() -> None:
    four = PodVolume(name="n", kind="nfs", source="192.0.2.1:/a/b", fstype="nfs4", options={"port": "99"})
    assert await nfs_source(four) == (
        "192.0.2.1:/a/b",
        "vers=4.2,addr=192.0.2.1,proto=tcp,port=99,clientaddr=10.0.2.15",
    )
    three = PodVolume(name="n", kind="nfs", source="127.0.0.1:/a", fstype="nfs")
    source, options = await nfs_source(three)
    assert source == "10.0.2.2:/a" and "vers=3" in options and "nolock" in options and "mountaddr=10.0.2.2" in options


def test_launchers(tmp_path: Path) -> None:
    entries = [share.Entry(Path("/a"), False), share.Entry(Path("/b"), True)]
    line = share.launcher(tmp_path, entries, root=True)
    assert line[:2] == ["unshare", "--mount"] and line[-6:] == [str(tmp_path), "rw", "/a", "ro", "/b", "--"]
    assert "--user" in share.launcher(tmp_path, entries, root=False)
    with pytest.raises(NotFound, match="the volume's source /none/such does not exist"):
        share.check([share.Entry(Path("/none/such"), False)])
