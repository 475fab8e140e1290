# SPDX-License-Identifier: Apache-2.0
"""What takes as long as a file is large, or a directory full, is called in a thread, so that the loop goes on."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

LONG = {"rmtree", "copytree", "copyfile", "copyfileobj", "rglob", "remove_tree", "copy_sparse", "TemporaryDirectory",
        "NamedTemporaryFile", "mkdtemp"}  # fmt: skip
THREADS = {"in_thread", "to_thread"}
OWN_PROCESSES = {"hyperctl", "client", "oci"}  # without a loop that serves others
SHORT = {
    # A daemon that only puts a backup back, and serves nobody meanwhile.
    "engine/backup/putting_back.py _clear",
    # The directory of a machine, below the run directory: sockets, links, a few small files.
    "engine/booted.py BootedMachine.end",
    "engine/booted.py start",
    "engine/factory/factory.py Factory._launch",
    "engine/forks/launched.py Launched.end",
    "engine/forks/source.py Woken._launch",
    "engine/forks/source.py Woken._launched",
    "engine/leftovers.py end_machine",
    "engine/leftovers.py end_machines",
    "engine/reattach.py Reattacher.kill_machine",
    "engine/reattach.py Reattacher.reattach",
    "engine/runtime.py Runtime.stop",
    "engine/sources.py Setup.launch",
    "engine/sources.py Warm._reconfigure",
    "hypervisor/firecracker/late.py Late.make",
    "hypervisor/firecracker/late.py Late.remove",
    "hypervisor/firecracker/late.py sweep",
    "hypervisor/libvirt/boot_place.py BootPlace.remove",
    "hypervisor/probe.py Prober._try",
    "hypervisor/qemu/driver.py QemuDriver._trial",
    # In a thread already, by who is handed it.
    "engine/forks/layers.py copy_whole",
    # A log, of which nothing may be written meanwhile: 10 MB where nobody says otherwise.
    "engine/forks/taking.py _copy_logs",
    # A few small files.
    "engine/secrets.py Secrets.remove_all",
    "images/fake_root.py FakeRoots.create",
    "images/push.py _seen",
    "images/skopeo.py _watch",
    # Before anybody is served.
    "engine/restore.py _keep_aside",
    "engine/volumes.py Volumes._end_unfinished",
    "images/store.py ImageStore.open",
    # What threads run.
    "engine/factory/factory.py _put_in_place",
    "sys/removal.py _remove",
    "sys/removal.py temporary_directory",
}


def _places(tree: ast.AST, inside: tuple[str, ...] = ()) -> Iterator[str]:
    """The functions in which one of `LONG` is named, where it is not in a call that hands it to a thread."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Call) and _last(node.func) in THREADS:
            continue
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield from _places(node, (*inside, node.name))
            continue
        if _last(node) in LONG:
            yield ".".join(inside)
        yield from _places(node, inside)


def _last(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def test_long_calls_are_off_the_loop(repository: Path) -> None:
    """Whoever adds one that is short, or in a thread already, adds it to `SHORT`."""
    package = repository / "src/hypercontainer"
    found = set()
    for path in package.rglob("*.py"):
        module = path.relative_to(package)
        if module.parts[0] not in OWN_PROCESSES:
            found |= {f"{module} {place}" for place in _places(ast.parse(path.read_text()))}
    assert found - SHORT == set(), "they hold up the loop: see sys/removal.py"
    assert SHORT - found == set(), "they are not there any more"


def test_what_is_found() -> None:
    text = """
async def bad(path):
    undo.callback(shutil.rmtree, path)

async def good(path):
    await tasks.in_thread(lambda: remove_tree(path))
"""
    assert list(_places(ast.parse(text))) == ["bad"]
