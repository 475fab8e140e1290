# SPDX-License-Identifier: Apache-2.0
"""Pods that are saved while they run, and pods that go on from that."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from hypercontainer.errors import Unsupported
from hypercontainer.hyperd.config import Config
from hypercontainer.hyperd.daemon import build_engine
from hypercontainer.hypervisor.facets import FixedDevices
from hypercontainer.model.pods import PodPlan, VolumeSpec
from hypercontainer.model.snapshots import ForkRequest, RestoreRequest, SnapshotRequest
from hypercontainer.model.specs import ContainerSpec, Mount, PortMapping

from .conftest import DEADLINE, Lab

# In memory: what the shell counts. On disks: the same count in the container's root, and in a volume; neither file is
# ever empty, however long its reader has waited for a processor.
COUNTS = "n=0; while true; do n=$((n+1)); echo $n >>/n; echo $n >>/data/n; echo counted $n; sleep 0.2; done"
# Until a socket of the guest is in a state: 0A listens, 01 is connected, 05 has sent all that it will.
HAS = 'has() { until grep -qs "$1" /proc/net/tcp /proc/net/tcp6; do usleep 50000; done; }'


async def fork(lab: Lab, key: str, *names: str) -> list[str]:
    """Ids of containers; one for each name."""
    made = []
    for name in names:
        (found,) = await lab.engine.snapshots.fork(key, ForkRequest(name=name))
        made.append(lab.engine.registry.members(found.id)[0].id)
    return made


async def said_by(lab: Lab, id_: str) -> str:
    """Its log, as far as it is."""
    batches = lab.engine.logs(id_, tail=None, since="", until="", follow=False)
    return "".join([r.log async for batch in batches for r in batch])


async def counted(lab: Lab, id_: str) -> list[int]:
    """What its log has by now."""
    return [int(line.split()[1]) for line in (await said_by(lab, id_)).splitlines() if line.startswith("counted")]


async def test_a_fork_goes_on_where_its_parent_was(lab: Lab) -> None:
    """Memory, root and volume are those of one instant, and its own from then on; so is the log."""
    await lab.engine.volumes.create(VolumeSpec(name="data"))
    id_ = await lab.create("sh", "-c", COUNTS, name="parent", mounts=[Mount(target="/data", source="data")])
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 3")
    (other,) = await fork(lab, "parent", "child")
    began = (await counted(lab, other))[-1]
    assert began >= 3
    await lab.printed(other, f"counted {began + 3}")
    for one in (id_, other):
        root, volume = (await lab.exec(one, "tail", "-qn", "1", "/n", "/data/n")).out.split()
        assert abs(int(root) - int(volume)) <= 1
    numbers = await counted(lab, other)
    assert numbers == list(range(1, len(numbers) + 1))  # nothing is missing, nothing comes twice
    volumes = {m.volume for c in (id_, other) for m in lab.engine.registry.container(c).mounts}
    assert len(volumes) == 2 and "data" in volumes


async def test_what_is_its_own(lab: Lab) -> None:
    id_ = await lab.create("sleep", "10000", name="parent")
    await lab.engine.containers.start(id_)
    ask = "hostname; cat /etc/hostname /etc/machine-id; cat /proc/sys/kernel/random/uuid; date +%s"
    await lab.exec(id_, "sh", "-c", ask)
    found = []
    for one in (id_, *await fork(lab, "parent", "f1", "f2")):
        done = await lab.exec(one, "sh", "-c", ask)
        assert done.code == 0
        name, file, machine, random, date = done.out.split()
        assert name == file == one[:12] and machine == one[:32]
        found.append((name, machine, random, int(date)))
    assert len({f[2] for f in found}) == 3
    assert max(f[3] for f in found) - min(f[3] for f in found) < DEADLINE


async def test_connections_of_the_parent_end(lab: Lab) -> None:
    """What its programs had open to outside is reset, where it went on; what was within the pod is not."""
    server = await asyncio.start_server(lambda reader, writer: writers.append(writer), "127.0.0.1", 0)
    writers: list[asyncio.StreamWriter] = []
    port = server.sockets[0].getsockname()[1]
    script = (
        f"(nc 10.0.2.2 {port}; echo outside ended) & (sleep 10000 | nc -l -p 99 >/dev/null) & {HAS}; "
        "has ':0063 .* 0A '; (nc 127.0.0.1 99 </dev/zero >/dev/null; echo inside ended) & "
        f"has ':0063 01 '; has ':{port:04X} 0[15] '; echo ready; sleep 10000"
    )
    id_ = await lab.create("sh", "-c", script, name="parent", network="user:host-loopback")
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "ready")
    try:
        (other,) = await fork(lab, "parent", "child")
        await lab.printed(other, "outside ended")
        (writer,) = writers
        writer.write(b"still here\n")
        await lab.printed(id_, "still here")
        mine, others = await said_by(lab, id_), await said_by(lab, other)
    finally:
        for writer in writers:
            writer.close()
        server.close()
    assert ("outside ended" in mine, "outside ended" in others) == (False, True)
    assert "inside ended" not in mine + others


async def test_published_ports_get_other_numbers(lab: Lab) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    id_ = await lab.create(
        "nc", "-ll", "-p", "80", "-e", "hostname", name="parent",
        ports=[PortMapping(container_port=80, host_port=port, host_ip="127.0.0.1")],
    )  # fmt: skip
    await lab.engine.containers.start(id_)
    (other,) = await fork(lab, "parent", "child")
    (mapped,) = lab.engine.registry.container(other).ports
    assert mapped.host_port not in (0, port)
    for one, where in ((id_, port), (other, mapped.host_port)):
        assert await _said(where) == f"{one[:12]}\n"


async def _said(port: int) -> str:
    """What a server says, once it does; one that has just gone on is not always there at once."""
    async with asyncio.timeout(DEADLINE):
        while True:
            try:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                said = (await reader.read()).decode()
                writer.close()
            except OSError:
                said = ""
            if said:
                return said
            await asyncio.sleep(0.05)


async def test_a_snapshot_outlives_its_pod_and_the_daemon(config: Config, lab: Lab) -> None:
    id_ = await lab.create("sh", "-c", COUNTS.replace("echo $n >>/data/n; ", ""), name="parent")
    await lab.engine.containers.start(id_)
    await lab.printed(id_, "counted 3")
    info = await lab.engine.snapshots.create(SnapshotRequest(pod="parent", name="shot"))
    assert 0 < info.size < info.memory
    await lab.engine.containers.remove(id_, force=True)
    await lab.engine.close(keep_running=False)
    lab.engine = build_engine(config)
    await lab.engine.open()
    assert [s.name for s in lab.engine.snapshots.all()] == ["shot"]
    restored = await lab.engine.snapshots.restore("shot", RestoreRequest(name="again"))
    other = lab.engine.registry.members(restored.id)[0].id
    began = (await counted(lab, other))[-1]
    await lab.printed(other, f"counted {began + 2}")
    # It is a container as others: it is stopped and started, and saved itself.
    (third,) = await fork(lab, "again", "third")
    await lab.printed(third, f"counted {began + 4}")
    # The memory of a restored one is in a file that others map: it reports no free pages, after it was saved neither.
    found = await lab.exec(other, "ls", "/sys/bus/virtio/drivers/virtio_balloon")
    machine = lab.engine.containers.runtime(lab.engine.registry.container(other)).machine
    assert found.code == 0 and "bind" in found.out and ("virtio" in found.out) == isinstance(machine, FixedDevices)
    # The next snapshot has what is another by now, and is whole without the one before.
    after = await lab.engine.snapshots.create(SnapshotRequest(pod="again", name="next"))
    assert after.parent == info.id and after.size < info.size
    await lab.engine.snapshots.remove("shot")
    last = await lab.engine.snapshots.restore("next", RestoreRequest(name="last"))
    last_id = lab.engine.registry.members(last.id)[0].id
    await lab.printed(last_id, f"counted {(await counted(lab, last_id))[-1] + 2}")
    await lab.engine.snapshots.remove("next")
    await lab.engine.containers.stop(other, timeout=0)
    await lab.engine.containers.start(other)
    assert lab.engine.snapshots.all() == [] and list((Path(config.root) / "snapshots").iterdir()) == []


async def test_a_pod_of_several_containers(lab: Lab) -> None:
    containers = [
        ContainerSpec(image="busybox", name=f"p-{n}", command=["sh", "-c", "while true; do date +%s; sleep 0.2; done"])
        for n in ("a", "b")
    ]
    await lab.engine.pods.create(PodPlan(name="p", containers=containers))
    await lab.engine.pods.start("p")
    (made,) = await lab.engine.snapshots.fork("p", ForkRequest(name="q"))
    members = lab.engine.registry.members(made.id)
    assert [c.name for c in members] == ["q-a", "q-b"]
    for container in members:
        done = await lab.exec(container.id, "sh", "-c", "hostname; cat /etc/hosts")
        assert done.out.split()[0] == "q" and "q-a" in done.out
    await lab.engine.pods.remove("q", force=True)
    await lab.engine.pods.remove("p", force=True)


async def test_what_cannot_be_saved_is_refused_first(lab: Lab, tmp_path: Path) -> None:
    id_ = await lab.create(
        "sleep", "1000", name="parent", mounts=[Mount(target="/x", source=str(tmp_path), type="bind")]
    )
    await lab.engine.containers.start(id_)
    with pytest.raises(Unsupported, match="has directories of this host"):
        await fork(lab, "parent", "child")
    assert (await lab.exec(id_, "true")).code == 0
