# SPDX-License-Identifier: Apache-2.0
"""What a container may do to the kernel that it shares with its pod: devices, system calls, archives."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import tarfile
from pathlib import Path

import pytest

from hypercontainer.engine.builtins import run_process
from hypercontainer.engine.builtins import running as builtin_running
from hypercontainer.engine.engine import Engine
from hypercontainer.engine.machine_disks import image_serial
from hypercontainer.errors import HyperError
from hypercontainer.model.mounts import parse_tmpfs
from hypercontainer.model.specs import InjectedFile, Mount, Resources
from hypercontainer.model.status import ContainerStatus
from hypercontainer.podfile import strict
from hypercontainer.protocol.constants import MOUNT_VOLUME, Builtin
from hypercontainer.protocol.messages import GuestContainer, GuestFile, GuestMount, GuestProcess

from .calls import MACHINES, build
from .conftest import DEADLINE, Lab
from .test_factory import fresh_ones, ready, started  # noqa: F401 - a fixture

SLEEP = ("sleep", "1000")


async def running(lab: Lab, *command: str, **how: object) -> str:
    id_ = await lab.create(*(command or SLEEP), **how)
    await asyncio.wait_for(lab.engine.containers.start(id_), DEADLINE)
    return id_


async def exported(engine: Engine, id_: str) -> set[str]:
    data = b"".join([chunk async for chunk in engine.archives.export(id_)])
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        return {m.name for m in tar}


async def test_diff_and_export_of_a_machine_of_the_factory(fresh_ones: str, lab: Lab) -> None:  # noqa: F811
    """A container that was built ahead has another id than its directory."""
    await ready(lab, fresh_ones)
    id_ = await running(lab)
    assert started(lab)[fresh_ones] >= 1
    assert (await lab.exec(id_, "sh", "-c", "echo new > /etc/new; rm /etc/passwd")).code == 0
    changes = {(c.kind, c.path) for c in await lab.engine.archives.changes(id_)}
    assert {("A", "/etc/new"), ("D", "/etc/passwd")} <= changes
    names = await exported(lab.engine, id_)
    assert "etc/new" in names and "etc/passwd" not in names and "bin/busybox" in names and "." not in names


# -- devices -------------------------------------------------------------------------


async def test_no_disk_and_no_console_can_be_opened(lab: Lab) -> None:
    """A node may be made anywhere (archives hold some); it opens nothing."""
    result = await lab.sh(
        'for d in $(awk \'NR>2 {print $1":"$2}\' /proc/partitions); do disks="$disks b:$d"; done;'
        'test -n "$disks" || exit 9;'
        "for n in $disks c:1:1 c:1:11 c:4:64 c:5:1 c:229:0 c:10:237; do for dir in / /dev /dev/shm /tmp; do"
        "  IFS=:; set -- $n; unset IFS; mknod $dir/x $1 $2 $3 || echo unmade $n;"
        "  (dd if=$dir/x of=/dev/null bs=1 count=1 && echo read $n in $dir) 2>/dev/null;"
        "  (: > $dir/x) 2>/dev/null && echo wrote $n in $dir; rm $dir/x; done; done;"
        "for n in 1:3 1:5 1:7 1:9 5:0; do mknod /tmp/y c ${n%:*} ${n#*:};"
        "  (: < /tmp/y) 2>&1 | grep -v 'No such device or address'; rm /tmp/y; done;"
        "echo x > /dev/null; head -c 1 /dev/urandom | wc -c",
    )
    assert (result.code, result.out, result.err) == (0, "1\n", "")


async def test_a_clone_limits_devices_too(fresh_ones: str, lab: Lab) -> None:  # noqa: F811
    await ready(lab, fresh_ones)
    before = started(lab)[fresh_ones]
    result = await lab.sh("mknod /tmp/k c 1 11 && (: > /tmp/k)")
    assert started(lab)[fresh_ones] == before + 1
    assert "Operation not permitted" in result.err


async def test_a_privileged_container_opens_disks(lab: Lab) -> None:
    result = await lab.sh(
        "set -- $(awk 'NR==3 {print $1, $2}' /proc/partitions); mknod /tmp/x b $1 $2; head -c 4 /tmp/x | wc -c",
        privileged=True,
    )
    assert result.out.strip() == "4", result.err


@pytest.mark.parametrize(("option", "code"), [("/t", 126), ("/t:exec,size=4m", 0)])
async def test_flags_of_a_tmpfs(lab: Lab, option: str, code: int) -> None:
    """As Docker's: nothing in it is executed unless that is asked for."""
    result = await lab.sh("cp /bin/busybox /t/true; /t/true", mounts=[parse_tmpfs(option)])
    assert result.code == code, result.err


async def test_one_file_system_is_one_device(lab: Lab) -> None:
    """`du -x`, `find -xdev` and `tar --one-file-system` go by st_dev."""
    result = await lab.sh("stat -c %d / /bin /bin/busybox /etc/passwd | sort -u | wc -l; du -sx /bin | cut -f1")
    one, size = map(int, result.out.split())
    assert one == 1 and size > 500


# -- system calls ----------------------------------------------------------------------


@pytest.fixture(scope="session")
def calls() -> dict[str, bytes]:
    """calls.c for 64 and for 32 bits."""
    return {machine: build(machine).read_bytes() for machine in MACHINES}


NEWUSER = 0x10000000
FAMILY_ALG, FAMILY_VSOCK = 38, 40
REFUSED = {  # number, arguments -> errno
    "x86_64": {
        "165,0,0,0": errno.EPERM,  # mount
        f"272,{NEWUSER}": errno.EPERM,  # unshare
        f"56,{NEWUSER}": errno.EPERM,  # clone
        "435,0,0": errno.ENOSYS,  # clone3: libraries then use clone
        "250,0": errno.EPERM,  # keyctl
        "425,1,0": errno.EPERM,  # io_uring_setup
        "323,0": errno.EPERM,  # userfaultfd
        "321,0": errno.EPERM,  # bpf
        "246,0": errno.EPERM,  # kexec_load
        "135,0x40000": errno.EPERM,  # personality
        f"41,{FAMILY_ALG},5": errno.EPERM,
        f"41,{FAMILY_VSOCK},1": errno.EPERM,
        "480,0": errno.ENOSYS,  # of no kernel that the profile knows
        f"{0x40000000 + 39}": errno.ENOSYS,  # getpid by x32
    },
    "x86": {
        "21,0,0,0": errno.EPERM,
        f"310,{NEWUSER}": errno.EPERM,
        "435,0,0": errno.ENOSYS,
        "288,0": errno.EPERM,
        "480,0": errno.ENOSYS,
    },
}
GRANTED = {
    "x86_64": {"39": 0, "135,0xffffffff": 0, "41,2,1": 0, "158,0x1003,0": errno.EFAULT, "452,0,0": errno.ENOSYS},
    "x86": {"20": 0, "136,0xffffffff": 0, "359,2,1": 0, "102,1,0": errno.EFAULT},
}


def probe(content: bytes) -> list[InjectedFile]:
    return [InjectedFile(target="/calls", content=content)]


@pytest.mark.parametrize("machine", ["x86_64", "x86"])
async def test_dockers_seccomp_profile(lab: Lab, calls: dict[str, bytes], machine: str) -> None:
    expected = REFUSED[machine] | GRANTED[machine]
    result = await lab.run("/calls", *expected, files=probe(calls[machine]))
    assert dict(zip(expected, map(int, result.out.split()), strict=True)) == expected, result.err


async def test_the_profile_follows_capabilities(lab: Lab, calls: dict[str, bytes]) -> None:
    asked = ("165,0,0,0", "435,0,0", "250,0", "161,0")  # mount, clone3, keyctl, chroot
    found = {}
    for name, how in {
        "root": {},
        "admin": {"cap_add": ["SYS_ADMIN"]},
        "less": {"cap_drop": ["SYS_CHROOT"]},
        "unconfined": {"seccomp": "unconfined"},
        "privileged": {"privileged": True},
    }.items():
        found[name] = (await lab.run("/calls", *asked, files=probe(calls["x86_64"]), **how)).out.split()
    perm, sys_, fault, inval = (str(e) for e in (errno.EPERM, errno.ENOSYS, errno.EFAULT, errno.EINVAL))
    assert found["root"] == [perm, sys_, perm, fault]
    assert found["admin"][0] == fault and found["admin"][1:] == [inval, perm, fault]
    assert found["less"] == [perm, sys_, perm, perm]
    assert found["unconfined"] == found["privileged"] or found["unconfined"][1:] == found["privileged"][1:]
    assert found["unconfined"][2] != perm


async def test_main_process_and_exec_are_filtered(lab: Lab) -> None:
    async def mode(*, exec_: bool = False, **how: object) -> str:
        show = ("grep", "Seccomp:", "/proc/self/status")
        if not exec_:
            return (await lab.run(*show, **how)).out.split()[1]
        id_ = await running(lab)
        return (await lab.exec(id_, *show, **how)).out.split()[1]

    assert [await mode(), await mode(exec_=True), await mode(user="1000")] == ["2", "2", "2"]
    assert [await mode(privileged=True), await mode(exec_=True, privileged=True), await mode(seccomp="unconfined")] == [
        "0",
        "0",
        "0",
    ]


def allowing_all_but(**answers: str) -> str:
    """A profile: calls, and what is done with them."""
    rules = [{"names": [name], "action": f"SCMP_ACT_{action}"} for name, action in answers.items()]
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})


async def test_a_profile_of_ones_own(lab: Lab) -> None:
    """Of the main process, of further ones, of other users and below an init."""
    profile = allowing_all_but(mkdir="ERRNO", mkdirat="ERRNO", unlink="KILL_PROCESS", unlinkat="KILL_PROCESS")
    script = "grep -w -e Seccomp: -e CapEff: /proc/self/status; mkdir /tmp/x; touch /tmp/y; rm -f /tmp/y; echo went on"
    for how in ({}, {"user": "1000"}, {"user": "1000", "no_new_privileges": True}, {"run_init": True},
                {"cap_drop": ["ALL"]}, {"privileged": True, "user": "7"}):  # fmt: skip
        result = await lab.run("sh", "-c", script, seccomp_profile=profile, **how)
        lines = result.out.split("\n")
        assert lines[1] == "Seccomp:\t2" and lines[-2] == "went on", (how, result)
        assert "can't create directory '/tmp/x': Operation not permitted" in result.err, how
        assert "Bad system call" in result.err, how
        none = "user" in how or "cap_drop" in how  # nothing is left of what the filter was loaded with
        assert (lines[0] == "CapEff:\t0000000000000000") is none, how
    id_ = await running(lab, seccomp_profile=profile)
    assert (await lab.exec(id_, "mkdir", "/tmp/x")).code == 1
    assert (await lab.exec(id_, "mkdir", "/tmp/x", privileged=True)).code == 0


async def test_a_profile_that_allows_next_to_nothing(lab: Lab, calls: dict[str, bytes]) -> None:
    """What comes before the program is not what it refuses; the program is found before."""
    names = ["execve", "write", "writev", "exit_group", "exit", "arch_prctl", "brk", "mmap"]
    few = json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": names, "action": "SCMP_ACT_ALLOW"}]})
    for how in ({}, {"user": "1000"}, {"no_new_privileges": True}):
        result = await lab.run("/calls", "39", files=probe(calls["x86_64"]), seccomp_profile=few, **how)
        assert (result.code, result.out.split()) == (0, [str(errno.EPERM)]), (how, result)
    nothing = json.dumps({"defaultAction": "SCMP_ACT_ERRNO"})
    assert (await lab.run("/calls", "39", files=probe(calls["x86_64"]), seccomp_profile=nothing)).code != 0


async def test_dockers_own_profile_as_a_file(lab: Lab, calls: dict[str, bytes]) -> None:
    """podman's copy of it, which answers what it does not know with ENOSYS."""
    profile = Path("/usr/share/containers/seccomp.json").read_text()
    for machine, personality in (("x86_64", 135), ("x86", 136)):
        asked = (f"{personality},0", f"{personality},1", "1000")
        result = await lab.run("/calls", *asked, files=probe(calls[machine]), seccomp_profile=profile)
        assert result.out.split() == ["0", str(errno.ENOSYS), str(errno.ENOSYS)], result


async def test_groups_that_the_image_has_for_a_user(lab: Lab) -> None:
    tables = {"/etc/passwd": b"app:x:5:7::/:/bin/sh\n", "/etc/group": b"own:x:7:\nmore:x:9:app\n"}
    files = [InjectedFile(target=path, content=content, mode=0o644) for path, content in tables.items()]
    for only, groups in ((False, {"7", "9", "11"}), (True, {"7", "11"})):
        found = await lab.run("id", "-G", user="5", groups=["11"], only_groups=only, files=files)
        assert set(found.out.split()) == groups, found.err
    id_ = await running(lab, user="5", only_groups=True, files=files)
    assert set((await lab.exec(id_, "id", "-G")).out.split()) == {"7"}
    began = lab.engine.registry.container(id_).state.identity
    assert began and (began.uid, began.gid, set(began.groups) | {7}) == (5, 7, {7})
    id_ = await running(lab, user="5", groups=["11"], files=files)
    began = lab.engine.registry.container(id_).state.identity
    assert began and (began.uid, began.gid, set(began.groups) | {7}) == (5, 7, {7, 9, 11})


# -- pauses, and trouble in a neighbour ------------------------------------------------------


async def test_what_cannot_be_frozen_goes_on(lab: Lab) -> None:
    """One of its processes waits in the kernel, here for a file system that stands still itself."""
    mount = Mount(type="volume", target="/v")
    id_ = await lab.create("sleep", "1000", privileged=True, mounts=[mount])
    await lab.engine.containers.start(id_)
    script = "fsfreeze --freeze /v && (touch /v/x &) && until grep -q ' D ' /proc/[0-9]*/stat; do :; done"
    assert (await lab.exec(id_, "sh", "-c", script)).code == 0
    with pytest.raises(HyperError, match="goes on: one of its processes waits in the kernel"):
        await lab.engine.containers.pause(id_)
    assert lab.engine.registry.container(id_).state.status == "running"
    assert (await lab.exec(id_, "fsfreeze", "--unfreeze", "/v")).code == 0
    await lab.engine.containers.pause(id_)
    assert lab.engine.registry.container(id_).state.status == "paused"
    await lab.engine.containers.remove(id_, force=True)


async def test_files_are_copied_while_paused(lab: Lab) -> None:
    id_ = await running(lab)
    await lab.engine.containers.pause(id_)
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w") as tar:
        member = tarfile.TarInfo("put")
        member.size, member.mtime = 4, 1_000_000_000
        tar.addfile(member, io.BytesIO(b"late"))

    async def data():  # type: ignore[no-untyped-def]
        yield archive.getvalue()

    async with asyncio.timeout(DEADLINE / 2):
        await lab.engine.archives.write(id_, "/tmp", data())
        got = b"".join([chunk async for chunk in lab.engine.archives.read(id_, "/tmp/put", follow=False)])
    with tarfile.open(fileobj=io.BytesIO(got)) as tar:
        assert tar.extractfile("put").read() == b"late"  # type: ignore[union-attr]
    session = lab.engine.containers.runtime(lab.engine.registry.container(id_)).agent
    await lab.engine.containers.unpause(id_)
    await session.freeze_container(id_[:12], True)  # by itself, behind the engine's back
    with pytest.raises(HyperError, match="paused"):
        async with asyncio.timeout(DEADLINE / 2):
            await lab.exec(id_, "true")
    await session.freeze_container(id_[:12], False)
    assert (await lab.exec(id_, "cat", "/tmp/put")).out == "late"


async def test_a_neighbour_is_answered_while_a_container_is_removed(lab: Lab) -> None:
    """Something holds the removed one's disk: the guest waits for that, its other containers do not."""
    pod = strict.decode({"id": "p", "exitPolicy": "continue", "containers": [
        {"name": "gone", "image": "busybox", "command": ["sleep", "1000"]},
        {"name": "other", "image": "busybox", "command": ["sleep", "1000"], "privileged": True},
    ]})  # fmt: skip
    made = await lab.engine.create_pod(pod)
    await asyncio.wait_for(lab.engine.pods.start(made.pod.id), DEADLINE)
    try:
        gone = lab.engine.registry.container("gone")
        session = lab.engine.containers.runtime(gone).agent
        pid = next(p.pid for p in await session.processes(gone.id[:12]))
        holder = await lab.exec(
            "other", "sh", "-c", f"cd /proc/{pid}/root/etc && {{ sleep 1000 >/dev/null 2>&1 & echo $!; }}"
        )
        await lab.engine.containers.kill("gone", "KILL")
        await asyncio.wait_for(lab.engine.containers.supervisor(gone).stopped.wait(), DEADLINE)
        deletion = asyncio.ensure_future(session.delete_container(gone.id[:12]))
        answered = asyncio.ensure_future(lab.exec("other", "echo", "here"))
        done, _ = await asyncio.wait({deletion, answered}, timeout=DEADLINE, return_when=asyncio.FIRST_COMPLETED)
        assert done == {answered} and answered.result().out == "here\n"
        assert (await lab.exec("other", "kill", "-9", holder.out.strip())).code == 0
        await asyncio.wait_for(deletion, DEADLINE)
    finally:
        await lab.engine.pods.remove(made.pod.id, force=True)


async def test_a_child_killed_for_memory_is_an_event(lab: Lab) -> None:
    """As Docker's: the container goes on, and `events` says that the kernel killed in it; once for each."""
    id_ = await running(lab, resources=Resources(memory=32 << 20))
    events = lab.engine.events.follow()
    begun = asyncio.ensure_future(anext(events))
    assert (await lab.exec(id_, "sh", "-c", "tail /dev/zero")).code == 137
    event = await asyncio.wait_for(begun, DEADLINE)
    while event.action != "oom":
        event = await asyncio.wait_for(anext(events), DEADLINE)
    assert event.id == id_
    await events.aclose()
    assert lab.engine.registry.container(id_).state.status is ContainerStatus.RUNNING
    dies = await lab.create("sh", "-c", "tail /dev/zero", resources=Resources(memory=32 << 20))
    await lab.engine.containers.start(dies)
    await asyncio.wait_for(lab.engine.containers.wait(dies), DEADLINE)
    assert [(e.action, e.id) for e in lab.engine.events.past() if e.action == "oom" and e.id in (id_, dies)] == [
        ("oom", id_),
        ("oom", dies),
    ]


async def test_no_container_looks_into_hyperstarts_own_processes(lab: Lab) -> None:
    """A process of `cp` is a copy of PID 1, with what that knows of all containers, and has few capabilities."""
    id_ = await running(lab, pid="pod")  # one that has its own process numbers does not even see it
    session = lab.engine.containers.runtime(lab.engine.registry.container(id_)).agent
    process = GuestProcess(args=("/tmp",), container=id_[:12], builtin=Builtin.TAR_EXTRACT, stdin=True)
    async with builtin_running(session, process) as (handle, _):
        look = (
            f"cat /proc/{handle.pid}/comm; for f in maps environ mem auxv; do head -c 1 /proc/{handle.pid}/$f; done; "
            f"readlink /proc/{handle.pid}/fd/0"
        )
        result = await lab.exec(id_, "sh", "-c", look)
        handle.close_stdin()
        await asyncio.wait_for(handle.exited, DEADLINE)
    assert len(result.out.split()) == 1, "it is seen, but not what is in it"
    assert result.err.count("Permission denied") == 4, result.err


async def test_a_pipe_in_a_shared_volume_holds_nobody_up(lab: Lab) -> None:
    """A file of a new container is bound over what a neighbour left there, which need not be a file."""
    first = await running(lab, mounts=[Mount(target="/v", source="shared")])
    assert (await lab.exec(first, "mkfifo", "/v/file")).code == 0
    container = lab.engine.registry.container(first)
    runtime = lab.engine.containers.runtime(container)
    second = GuestContainer(
        id="second",
        image_disk=runtime.name_of(image_serial(container)),
        image_fstype="erofs",
        files=(GuestFile("/v/file", b"mine"),),
        mounts=(GuestMount(MOUNT_VOLUME, "/v", next(iter(runtime.volumes.values()))),),
    )
    async with asyncio.timeout(DEADLINE / 2):
        await runtime.agent.create_container(second)
        done = await run_process(runtime.agent, GuestProcess(args=("/bin/cat", "/v/file"), container="second"))
    assert done.output == b"mine", done.errors
