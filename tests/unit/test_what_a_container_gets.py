# SPDX-License-Identifier: Apache-2.0
"""What a container has from outside its image: variables, its user, files, secrets, network interfaces, names."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.engine import environment, guest_files, machine_config, machine_disks, naming, resolve
from hypercontainer.engine.paths import Paths
from hypercontainer.engine.principal import asked_by
from hypercontainer.engine.secrets import KEYRING, Secrets
from hypercontainer.engine.volume_sources import image_volume
from hypercontainer.errors import InvalidArgument, NotFound
from hypercontainer.hypervisor.driver import Disk, RbdDisk
from hypercontainer.images.fake_root import FakeRoots
from hypercontainer.model.mounts import Mount
from hypercontainer.model.pods import PodSpec, Service
from hypercontainer.model.ports import parse_publish
from hypercontainer.model.principal import Principal
from hypercontainer.model.reference import parse_reference
from hypercontainer.model.specs import HOST_GATEWAY, ContainerSpec, HostEntry, InjectedFile, SecretMount
from hypercontainer.model.status import Container, MountPoint, Pod, PodVolume, Process
from hypercontainer.network import usermode
from hypercontainer.network.backend import Link, NicKind
from hypercontainer.protocol.messages import Interface


class OneNetwork:
    """What is asked of a pod's network: its NICs, and name servers."""

    def __init__(self, *links: Link) -> None:
        self._links = list(links)

    def links(self, pod: Pod) -> list[Link]:
        return self._links

    def name_servers(self, pod: Pod) -> list[str]:
        return ["10.9.0.1"] if self._links else []


BRIDGED: Any = OneNetwork(Link(NicKind.TAP, addresses=("fd00::2/64", "10.9.0.2/24"), gateways=("10.9.0.1", "fd00::1")))
USER: Any = OneNetwork(Link(NicKind.USER, (usermode.ADDRESS,), (usermode.GATEWAY,)))
NOT_YET: Any = OneNetwork(Link(NicKind.TAP))  # what it is, plugins say when it starts
NO_NETWORK: Any = OneNetwork()


def a_pod(**fields: Any) -> Pod:
    spec = fields.pop("spec", PodSpec())
    return Pod(id="p" * 64, name="p", created_at="", hostname="host", vcpus=1, memory=1 << 28, spec=spec, **fields)


def a_container(spec: ContainerSpec, *mounts: MountPoint) -> Container:
    return Container(
        id="c" * 64, name="c", pod="p" * 64, created_at="", image="i", image_id="sha256:1", hostname="host",
        process=Process(args=["x"], env=[], cwd="/", user="", stop_signal=15), spec=spec, mounts=list(mounts),
    )  # fmt: skip


# -- variables and the user -------------------------------------------------------------


@pytest.mark.parametrize(
    ("network", "networks", "expected"),
    [
        ("", BRIDGED, {"podIP": "10.9.0.2", "hostIP": "10.9.0.1"}),
        ("user", USER, {"podIP": "10.0.2.15", "hostIP": "10.0.2.2"}),
        ("none", NO_NETWORK, {"podIP": "127.0.0.1"}),
        ("cni:net", NOT_YET, {}),
    ],
)
def test_addresses_that_are_known_before_a_start(network: str, networks: Any, expected: dict[str, str]) -> None:
    assert environment.addresses(a_pod(spec=PodSpec(network=network)), networks.links(None)) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [("$(A)/$(B)", "1/$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$(A", "$(A"), ("$$$(A)", "$1"), ("$(a.b-c)", "x")],
)
def test_references_as_kubernetes_has_them(text: str, expected: str) -> None:
    assert environment.expand(text, {"A": "1", "a.b-c": "x"}) == expected


def test_variables_see_those_before_them() -> None:
    spec = ContainerSpec(image="i", env=["A=$(B)", "B=2", "C=$(B)"], command=["echo", "$(C)"], expand=True)
    found = environment.resolved(spec, {})
    assert (found.env, found.command, found.entrypoint) == (["A=$(B)", "B=2", "C=2"], ["echo", "2"], None)


@pytest.mark.parametrize(
    ("user", "image_user", "non_root", "expected"),
    [
        ("", "", False, ""), ("", "app", False, "app"), ("5", "app", False, "5"), (":7", "app:1", False, "app:7"),
        (":7", "", False, "0:7"), ("5:0", "root", True, "5:0"), ("", "1000", True, "1000"),
    ],
)  # fmt: skip
def test_who_runs(user: str, image_user: str, non_root: bool, expected: str) -> None:
    assert environment.user_of(ContainerSpec(image="i", user=user, non_root=non_root), image_user) == expected


@pytest.mark.parametrize(
    ("user", "image_user", "why"),
    [("", "", "and would"), ("0:5", "", "and would"), ("", "root", "and would"), ("", "app", "without a number")],
)
def test_who_must_not_be_root(user: str, image_user: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        environment.user_of(ContainerSpec(image="i", user=user, non_root=True), image_user)


# -- files and secrets ------------------------------------------------------------------


@pytest.fixture
def secrets(tmp_path: Path) -> Secrets:
    paths = Paths(tmp_path / "root", tmp_path / "run")
    paths.create()
    return Secrets(paths)


def test_files_of_the_network_are_there_unless_others_are(secrets: Secrets) -> None:
    spec = ContainerSpec(image="i", files=[InjectedFile(target="/etc/hosts", content=b"mine")])
    own = MountPoint(mount=Mount(target="/etc/resolv.conf", source="v"), volume="v")
    found = {f.target: f.content for f in guest_files.files_of(a_pod(), a_container(spec, own), secrets, BRIDGED, [])}
    assert found == {"/etc/hostname": b"host\n", "/etc/machine-id": b"p" * 32 + b"\n"}


def test_hosts_and_name_servers(secrets: Secrets) -> None:
    pod = a_pod(
        spec=PodSpec(hosts=[HostEntry(ip=HOST_GATEWAY, names=["docker"]), HostEntry(ip="1.2.3.4", names=["a"])])
    )
    container = a_container(ContainerSpec(image="i"))
    found = {f.target: f.content.decode() for f in guest_files.files_of(pod, container, secrets, BRIDGED, ["db"])}
    assert found["/etc/hosts"].splitlines()[-4:] == [
        "fd00::2\thost", "127.0.0.1\tdb", "10.9.0.1\tdocker", "1.2.3.4\ta"
    ]  # fmt: skip
    assert found["/etc/resolv.conf"].startswith("nameserver 10.9.0.1\n")


def test_this_host_is_no_name_where_no_network_leads(secrets: Secrets) -> None:
    pod = a_pod(spec=PodSpec(network="none", hosts=[HostEntry(ip=HOST_GATEWAY, names=["docker"])]))
    with pytest.raises(InvalidArgument, match="does not lead to this host"):
        guest_files.files_of(pod, a_container(ContainerSpec(image="i")), secrets, NO_NETWORK, [])


def test_files_go_into_the_root_or_are_bound_where_that_is_read_only(secrets: Secrets) -> None:
    file = InjectedFile(target="/srv/x", content=b"x", mode=0o640, uid=7, gid=8)
    writable = a_container(ContainerSpec(image="i", files=[file]))
    with tarfile.open(fileobj=io.BytesIO(guest_files.injected_archive(writable))) as tar:
        (member,) = tar.getmembers()
        assert (member.name, member.mode, member.uid, member.gid) == ("srv/x", 0o640, 7, 8)
    fixed = a_container(ContainerSpec(image="i", files=[file], read_only=True))
    assert guest_files.injected_archive(fixed) == b""
    (bound,) = [f for f in guest_files.files_of(a_pod(), fixed, secrets, BRIDGED, []) if f.target == "/srv/x"]
    assert (bound.content, bound.mode, bound.uid, bound.gid) == (b"x", 0o640, 7, 8)


def test_more_than_a_message_holds_is_refused(secrets: Secrets) -> None:
    big = InjectedFile(target="/x", content=bytes(guest_files.FILES_MAX))
    with pytest.raises(InvalidArgument, match="keep large ones|is the most"):
        guest_files.files_of(
            a_pod(), a_container(ContainerSpec(image="i", files=[big], read_only=True)), secrets, BRIDGED, []
        )


def test_secrets_are_encrypted_and_the_users_own(secrets: Secrets, tmp_path: Path) -> None:
    pod = a_pod()
    secrets.put(pod.id, "token", b"very secret")
    mounted = SecretMount(secret="token", target="/run/secrets/token", uid=5)
    container = a_container(ContainerSpec(image="i", secrets=[mounted]))
    (found,) = [f for f in guest_files.files_of(pod, container, secrets, BRIDGED, []) if f.uid == 5]
    assert (found.content, found.mode) == (b"very secret", 0o400)
    files = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(files) == 2 and not any(b"very secret" in p.read_bytes() for p in files)
    assert all(stat.S_IMODE(os.stat(p).st_mode) & 0o077 == 0 for p in files)
    secrets.remove_all(pod.id)
    secrets.remove_all(pod.id)
    with pytest.raises(NotFound, match="no secret 'token'"):
        secrets.get(pod.id, "token")


# -- disks and interfaces ---------------------------------------------------------------


async def test_what_is_behind_a_volume(secrets: Secrets, tmp_path: Path) -> None:
    pod = a_pod()
    disks = machine_disks.MachineDisks(FakeRoots(tmp_path, ("sha256:1",)), secrets)
    disk = PodVolume(name="v" * 200, kind="disk", source="/v.img", read_only=True, format="qcow2", cache="none")
    serial = machine_disks.volume_serial(disk)
    assert len(serial) <= 20  # what virtio-blk has for it
    assert await disks.of_volume(pod, disk) == Disk(serial, Path("/v.img"), True, "qcow2", "none")
    secrets.put(pod.id, f"{KEYRING}r", b"[client.me]")
    rbd = PodVolume(name="r", kind="rbd", source="pool/image", monitors=["m"], options={"user": "me"})
    found = await disks.of_volume(pod, rbd)
    assert isinstance(found, RbdDisk)
    assert (found.pool, found.image, found.user, found.keyring) == ("pool", "image", "me", "[client.me]")
    assert await disks.of_volume(pod, PodVolume(name="d", kind="directory", source="/d")) is None
    image = image_volume("sha256:1", "erofs")
    found = await disks.of_volume(pod, image)
    assert isinstance(found, Disk) and (found.serial, found.read_only) == (machine_disks.volume_serial(image), True)


async def test_the_disks_of_a_machine(secrets: Secrets, tmp_path: Path) -> None:
    """Those of each container's root, in their order, and then those behind volumes."""
    disks = machine_disks.MachineDisks(FakeRoots(tmp_path, ("sha256:1",)), secrets)
    one = a_container(ContainerSpec(image="x", cache="none"))
    pod = a_pod(volumes=[PodVolume(name="t", kind="tmpfs"), PodVolume(name="v", kind="disk", source="/v.img")])
    image, own, volume = await disks.of_pod(pod, [one])
    assert isinstance(image, Disk) and isinstance(own, Disk) and isinstance(volume, Disk)
    assert (image.serial, image.read_only, image.cache) == (machine_disks.image_serial(one), True, "none")
    assert (own.serial, own.read_only, own.cache) == (machine_disks.scratch_serial(one), False, "none")
    assert (image.path.parent, own.path.parent, volume.path) == (tmp_path, tmp_path, Path("/v.img"))


def test_what_the_guest_configures() -> None:
    service = Service(service_ip="10.254.0.9", service_port=1)
    lo = Interface("lo", ("127.0.0.1/8", "::1/128", "10.254.0.9/32"))
    pod = a_pod(spec=PodSpec(network="user", services=[service]))
    user = Interface("eth0", (usermode.ADDRESS,), (usermode.GATEWAY,), 0)
    assert machine_config.guest_interfaces(pod, USER.links(pod)) == [lo, user]
    bridged = Interface("eth0", ("fd00::2/64", "10.9.0.2/24"), ("10.9.0.1", "fd00::1"), 0, mac="0a:00:00:00:00:01")
    assert machine_config.guest_interfaces(pod, BRIDGED.links(pod), ["0a:00:00:00:00:01"]) == [lo, bridged]
    alone = a_pod(spec=PodSpec(network="none"))
    assert machine_config.guest_interfaces(alone, []) == [Interface("lo", ("127.0.0.1/8", "::1/128"))]


# -- names ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a", "A.b_c-9", "9", "x" * 128])
def test_names(name: str) -> None:
    naming.check("container", name)


@pytest.mark.parametrize("name", ["", "-a", ".a", "a b", "a/b", "é", "x" * 129, "a\n"])
def test_no_names(name: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid container name"):
        naming.check("container", name)


def test_a_name_is_one_tenants() -> None:
    records = [a_pod(tenant=tenant) for tenant in ("blue", "red")]
    with asked_by(Principal("uid:1", "red")):
        assert naming.find(records, "p") is records[1] and list(naming.mine(records)) == [records[1]]
    assert naming.find(records, "p") is None  # the daemon's own tenant has none


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        (parse_reference, "busybox"), (parse_reference, "a.b/c:1"), (parse_publish, "80:80"),
        (resolve.check_hostname, "a.b"), (resolve.check_hostname, "busy_name"), (resolve.check_hostname, "a"),
    ],
)  # fmt: skip
def test_a_line_break_at_the_end_is_part_of_a_text(parse: Callable[[str], object], text: str) -> None:
    """It would go into names of files, and into lines of /etc/hosts."""
    parse(text)
    with pytest.raises(InvalidArgument):
        parse(f"{text}\n")
