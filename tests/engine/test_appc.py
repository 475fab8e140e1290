# SPDX-License-Identifier: Apache-2.0
"""App Container images: loaded, run, and what is wrong with some; made and looked at by actool where it is there."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import shutil
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

import pytest

from hypercontainer.errors import InvalidArgument
from hypercontainer.images.layout import Layout
from hypercontainer.model.appc import App, Isolator, Pair, reference, rights_of
from hypercontainer.podfile.load import load
from hypercontainer.sys.caches import cache_directory

from .served import Served, served
from .test_image_verbs import ctl

_APP: dict[str, Any] = {
    "exec": ["/bin/serve", "-v"], "user": "100", "group": "300", "supplementaryGIDs": [400, 401],
    "workingDirectory": "/opt/work", "environment": [{"name": "REDUCE_WORKER_DEBUG", "value": "true"}],
    "eventHandlers": [{"name": "pre-start", "exec": ["/usr/bin/data-downloader"]}],
    "isolators": [
        {"name": "resource/cpu", "value": {"request": "250m", "limit": "500m"}},
        {"name": "resource/memory", "value": {"request": "64M", "limit": "128M"}},
        {"name": "os/linux/capabilities-retain-set", "value": {"set": ["CAP_NET_BIND_SERVICE", "CAP_SYS_ADMIN"]}},
        {"name": "resource/network-bandwidth", "value": {"default": True, "limit": "1G"}},
    ],
    "mountPoints": [{"name": "work", "path": "/var/lib/work", "readOnly": False}],
    "ports": [{"name": "health", "port": 4000, "protocol": "tcp", "socketActivated": True},
              {"name": "many", "port": 5000, "count": 2, "protocol": "udp"}],
}  # fmt: skip


def manifest(name: str = "example.com/worker", **more: Any) -> dict[str, Any]:
    return {
        "acKind": "ImageManifest", "acVersion": "0.8.11", "name": name,
        "labels": [{"name": "version", "value": "1.0.0"}, {"name": "arch", "value": "amd64"},
                   {"name": "os", "value": "linux"}],
        **more,
    }  # fmt: skip


def aci(path: Path, document: Any, files: dict[str, bytes] | None = None, *, also: tuple[str, ...] = ()) -> Path:
    """An archive, as actool writes it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        parts = {} if document is None else {"manifest": json.dumps(document).encode()}
        root = tarfile.TarInfo("rootfs")
        root.type, root.mode = tarfile.DIRTYPE, 0o755
        tar.addfile(root)
        for name, data in {
            **parts,
            **{f"rootfs/{k}": v for k, v in (files or {}).items()},
            **dict.fromkeys(also, b""),
        }.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(data), 0o755
            info.pax_headers = {"SCHILY.xattr.user.k": "v"} if name.endswith("serve") else {}
            tar.addfile(info, io.BytesIO(data))
        if files and "bin/serve" in files:
            link = tarfile.TarInfo("rootfs/bin/hard")
            link.type, link.linkname = tarfile.LNKTYPE, "rootfs/bin/serve"
            tar.addfile(link)
    path.write_bytes(gzip.compress(out.getvalue()) if path.suffix == ".gz" else out.getvalue())
    return path


def layer_of(s: Served, name: str, index: int = -1) -> tarfile.TarFile:
    image = s.stage.engine.images.find(name)
    return tarfile.open(
        fileobj=io.BytesIO(Layout(s.stage.paths.images).blobs.read(image.config.rootfs.diff_ids[index]))
    )


async def test_an_image_is_loaded_with_all_that_its_manifest_says(template: Path, tmp_path: Path) -> None:
    annotations = [{"name": "created", "value": "2014-10-27T19:32:27Z"}, {"name": "authors", "value": "A <a@x.org>"},
                   {"name": "homepage", "value": "https://x.org"}, {"name": "x.org/odd", "value": "1"}]  # fmt: skip
    path = aci(tmp_path / "worker.aci.gz", manifest(app=_APP, annotations=annotations), {"bin/serve": b"#!"})
    async with served(template, own_images=True) as s:
        out = await ctl(s, "load", str(path))
        plain = "sha512-" + hashlib.sha512(gzip.decompress(path.read_bytes())).hexdigest()
        assert out == f"Loaded image: example.com/worker:1.0.0\nApp Container image ID: {plain}\n"
        found = s.stage.engine.images.describe("example.com/worker:1.0.0")
        assert (found.os, found.architecture, found.author, found.created) == (
            "linux", "amd64", "A <a@x.org>", "2014-10-27T19:32:27Z",
        )  # fmt: skip
        assert found.config == {
            "Entrypoint": ["/bin/serve", "-v"], "User": "100:300", "WorkingDir": "/opt/work",
            "Env": ["REDUCE_WORKER_DEBUG=true"], "Volumes": {"/var/lib/work": {}},
            "ExposedPorts": {"4000/tcp": {}, "5000/udp": {}, "5001/udp": {}},
            "Labels": {"org.opencontainers.image.authors": "A <a@x.org>", "x.org/odd": "1",
                       "org.opencontainers.image.url": "https://x.org", "org.appc.id": plain},
        }  # fmt: skip
        with layer_of(s, "example.com/worker:1.0.0") as layer:
            assert layer.getnames() == [".", "bin/serve", "bin/hard"]
            assert layer.getmember("bin/serve").pax_headers["SCHILY.xattr.user.k"] == "v"
            assert layer.getmember("bin/hard").linkname == "bin/serve"
            file = layer.extractfile("bin/serve")
            assert file and file.read() == b"#!"


async def test_run_has_what_the_app_asks_for(template: Path, tmp_path: Path) -> None:
    path = aci(tmp_path / "a.aci", manifest(app=_APP | {"exec": ["sleep", "100000"]}), {"bin/serve": b"#!"})
    async with served(template, own_images=True) as s:
        await ctl(s, "run", "-d", "--name", "a", f"aci:{path}")
        spec = s.stage.engine.registry.container("a").spec
        assert (
            spec.image == "example.com/worker:1.0.0"
            and s.stage.engine.registry.container("a").process.args[0] == "sleep"
        )
        assert (spec.resources.memory, spec.resources.cpus, spec.groups) == (128_000_000, 0.5, ["400", "401"])
        assert (spec.cap_add, spec.cap_drop) == (["NET_BIND_SERVICE", "SYS_ADMIN"], ["ALL"])
        await ctl(s, "create", "--name", "b", "-m", "32m", "--cap-drop", "CHOWN", f"aci:{path}")
        spec = s.stage.engine.registry.container("b").spec
        assert (spec.resources.memory, spec.cap_add, spec.cap_drop) == (32 << 20, [], ["CHOWN"])
        assert "cannot read /nonexistent" in await ctl(s, "run", "aci:/nonexistent", status=125)


async def test_what_it_depends_on_lies_below_or_is_named(template: Path, tmp_path: Path) -> None:
    needs = [{"imageName": "example.com/base", "labels": [{"name": "version", "value": "2"}]},
             {"imageName": "example.com/more"}]  # fmt: skip
    path = aci(tmp_path / "a.aci", manifest(dependencies=needs), {"mine": b"1"})
    async with served(template, own_images=True) as s:
        told = await ctl(s, "load", "-q", str(path), status=1)
        assert "the archive depends on example.com/base:2, example.com/more:latest: load what is missing first" in told
        base = aci(
            tmp_path / "base.aci", manifest("example.com/base", labels=[{"name": "version", "value": "2"}]), {"b": b"1"}
        )
        more = aci(tmp_path / "more.aci", manifest("example.com/more", labels=[]), {"m": b"2"})
        await ctl(s, "load", "-q", str(base))
        assert "depends on example.com/more:latest:" in await ctl(s, "load", "-q", str(path), status=1)
        await ctl(s, "load", "-q", str(more))
        await ctl(s, "load", "-q", str(path))
        names = [layer_of(s, "example.com/worker:1.0.0", n).getnames() for n in range(3)]
        assert names == [[".", "b"], [".", "m"], [".", "mine"]]


@pytest.mark.parametrize(
    ("document", "also", "says"),
    [
        (None, (), "has no manifest, which App Container images have"),
        ([], (), "has a manifest that is damaged"),
        (manifest() | {"acKind": "PodManifest"}, (), "is of the kind 'PodManifest', not an image"),
        (manifest(), ("other",), "has an entry 'other', which is neither its manifest nor below rootfs"),
        (manifest(), ("rootfs/a", "./rootfs/a"), "has 'rootfs/a' twice"),
        (manifest(), ("rootfs/../../etc/x",), "that cannot be"),
        (manifest(labels=[{"name": "os", "value": "freebsd"}]), (), "is for freebsd, not for linux"),
        (manifest(labels=[{"name": "arch", "value": "vax"}]), (), "processors of the kind 'vax'"),
        (manifest(pathWhitelist=["/a"]), (), "has a pathWhitelist"),
        (manifest(app=_APP | {"user": "/bin/x"}), (), "runs as who owns /bin/x"),
        (manifest(app=_APP | {"ports": [{"name": "x", "port": 0, "protocol": "tcp"}]}), (), "ports that cannot be"),
        (manifest(app=_APP | {"isolators": [{"name": "resource/memory", "value": "x"}]}), (), "isolator resource/"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_told_and_leaves_nothing(
    template: Path, tmp_path: Path, document: Any, also: tuple[str, ...], says: str
) -> None:
    path = aci(tmp_path / "a.aci", document, also=also)
    async with served(template, own_images=True) as s:
        blobs = {p.name for p in (s.stage.paths.images / "blobs/sha256").iterdir()}
        assert says in await ctl(s, "load", "-q", str(path), status=1)
        assert {p.name for p in (s.stage.paths.images / "blobs/sha256").iterdir()} == blobs


def test_names_and_rights() -> None:
    assert reference("example.com/a", [Pair("version", "1.0+build")]) == "example.com/a:1.0-build"
    assert reference("example.com/a~b", []) == ""
    assert rights_of(App()).memory == 0
    assert rights_of(App(isolators=[Isolator("resource/cpu", {"limit": "2"})])).cpus == 2.0
    assert rights_of(App(isolators=[Isolator("resource/memory", {"request": "1.5Gi"})])).memory == 3 << 29
    assert rights_of(App(isolators=[Isolator("os/linux/no-new-privileges", True)])).no_new_privileges
    removed = rights_of(App(isolators=[Isolator("os/linux/capabilities-remove-set", {"set": ["CAP_SYS_PTRACE"]})]))
    assert (removed.cap_add, removed.cap_drop) == ([], ["SYS_PTRACE"])
    with pytest.raises(InvalidArgument, match="isolator resource/cpu has no value that can be"):
        rights_of(App(isolators=[Isolator("resource/cpu", {"limit": "many"})]))


def actool() -> str:
    """The program of Debian's package appc-spec, which is fetched where it is not installed."""
    if found := shutil.which("actool"):
        return found
    place = cache_directory("appc-spec")
    program = place / "usr/bin/actool"
    if not program.exists():
        with tempfile.TemporaryDirectory() as directory:
            fetched = subprocess.run(["apt-get", "download", "appc-spec"], cwd=directory, capture_output=True)
            if fetched.returncode:
                pytest.skip("Debian's package appc-spec cannot be fetched")
            (package,) = Path(directory).glob("*.deb")
            subprocess.run(["dpkg", "-x", package, place], check=True)
    return str(program)


async def test_one_that_actool_builds_and_validates(template: Path, tmp_path: Path) -> None:
    tool = actool()
    tree = tmp_path / "tree"
    (tree / "rootfs/bin").mkdir(parents=True)
    (tree / "rootfs/bin/serve").write_bytes(b"#!")
    (tree / "manifest").write_text(json.dumps(manifest(app=_APP)))
    path = tmp_path / "built.aci"
    subprocess.run([tool, "build", tree, path], check=True, capture_output=True)
    subprocess.run([tool, "validate", path], check=True, capture_output=True)
    async with served(template, own_images=True) as s:
        out = await ctl(s, "load", "-i", str(path))
        assert out.startswith("Loaded image: example.com/worker:1.0.0\nApp Container image ID: sha512-")
        with layer_of(s, "example.com/worker:1.0.0") as layer:
            assert "bin/serve" in layer.getnames()


_POD: dict[str, Any] = {
    "acVersion": "0.8.11", "acKind": "PodManifest",
    "apps": [
        {"name": "worker", "image": {"name": "example.com/worker", "labels": [{"name": "version", "value": "1.0.0"}]},
         "app": _APP | {"exec": ["sleep", "100000"]}, "readOnlyRootFS": True,
         "mounts": [{"volume": "work", "path": "/var/lib/work"}]},
        {"name": "plain", "image": {"name": "example.com/worker", "labels": [{"name": "version", "value": "1.0.0"}]}},
    ],
    "volumes": [{"name": "work", "kind": "empty", "mode": "0750"}],
    "isolators": [{"name": "resource/memory", "value": {"limit": "512M"}}],
    "annotations": [{"name": "ip-address", "value": "10.1.2.3"}],
    "ports": [{"name": "health", "hostPort": 2121}],
}  # fmt: skip


def loaded(path: Path, document: Any) -> Any:
    path.write_text(json.dumps(document))
    return load(str(path))


def test_a_pod_manifest_is_a_podfile(tmp_path: Path) -> None:
    found = loaded(tmp_path / "pod.json", _POD)
    pod, (worker, plain) = found.podfile, found.podfile.containers
    assert worker.image == plain.image == "example.com/worker:1.0.0" and worker.read_only and not plain.read_only
    assert (worker.entrypoint, worker.command, plain.entrypoint) == (["sleep", "100000"], [], None)
    assert (worker.user.name, worker.user.group, worker.user.additional_groups) == ("100", "300", ["400", "401"])
    assert (
        worker.limits.cpus == 0.5 and worker.capabilities.drop == ["ALL"] and pod.labels == {"ip-address": "10.1.2.3"}
    )
    assert [(v.volume, v.path) for v in worker.volumes] == [("work", "/var/lib/work")]
    assert [(p.container_port, p.host_port) for p in pod.portmappings] == [(4000, 2121)] and pod.pid == "container"
    assert "the event handler pre-start of the app worker" in found.unmapped
    shared = _POD | {"volumes": [{"name": "work", "kind": "host", "source": "/srv", "readOnly": True}]}
    (volume,) = loaded(tmp_path / "pod.json", shared).podfile.volumes
    assert (volume.source, volume.format, volume.read_only) == ("/srv", "vfs", True)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"apps": 1}, "pod manifest: Expected `array`"),
        ({"volumes": []}, "the app worker mounts 'work', which is no volume of the pod"),
        ({"volumes": [{"name": "work", "kind": "nfs"}]}, "volume work is of the kind 'nfs': use host or empty"),
        ({"ports": [{"name": "odd", "hostPort": 1}]}, "no app of the pod has a port 'odd'"),
    ],
)
def test_what_is_wrong_with_a_pod_manifest(tmp_path: Path, changed: dict[str, Any], says: str) -> None:
    with pytest.raises(InvalidArgument) as error:
        loaded(tmp_path / "pod.json", _POD | changed)
    assert says in str(error.value)


async def test_a_pod_manifest_runs_as_a_pod(template: Path, tmp_path: Path) -> None:
    path = aci(tmp_path / "a.aci", manifest(app=_APP | {"exec": ["sleep", "100000"]}), {"bin/serve": b"#!"})
    async with served(template, own_images=True) as s:
        id_ = (await ctl(s, "load", "-q", str(path))).split()[-1]
        apps = [_POD["apps"][0], {"name": "by-id", "image": {"id": id_[:30]}}]
        (tmp_path / "pod.json").write_text(
            json.dumps(_POD | {"apps": apps, "volumes": [{"name": "work", "kind": "empty"}]})
        )
        await ctl(s, "pod", "create", "-n", "p", str(tmp_path / "pod.json"))
        members = {c.name: c for c in s.stage.engine.registry.containers()}
        assert len(members) == 2 and {c.image for c in members.values()} == {"example.com/worker:1.0.0"}
        gone = {"apps": [{"name": "x", "image": {"id": "sha512-" + "0" * 40}}], "ports": []}
        (tmp_path / "pod.json").write_text(json.dumps(_POD | gone))
        told = await ctl(s, "pod", "create", "-n", "q", str(tmp_path / "pod.json"), status=1)
        assert "no App Container image sha512-000000000000: take it with `hyperctl load FILE`" in told
