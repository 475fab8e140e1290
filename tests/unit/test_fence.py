# SPDX-License-Identifier: Apache-2.0
"""Tables of the user-mode network: one per daemon, and those of daemons that are gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap

import pytest

SCRIPT = """
    import asyncio, json, os, subprocess, sys
    from pathlib import Path
    from hypercontainer.network import fence, nftables

    def daemon(run, *, dies):
        code = "import asyncio, sys; from hypercontainer.network import fence, nftables;"
        code += f"asyncio.run(nftables.apply(fence.raised(fence.table(__import__('pathlib').Path({run!r})))));"
        code += "print(flush=True); sys.stdin.read()"
        process = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        process.stdout.readline()
        if dies:
            process.kill()
            process.wait()
        return process

    daemon("/gone", dies=True)
    lives = daemon("/lives", dies=False)
    daemon("/machines", dies=True)
    machine = subprocess.Popen(["sleep", "1000"], env={**os.environ, "HYPER_MACHINE": "/machines/pods/0123"})
    other = fence.raised("inet hyper_user_00000000").replace(f"_{os.stat('/proc/self/ns/pid').st_ino} ", "_1 ")
    asyncio.run(nftables.apply(other))
    asyncio.run(nftables.apply("add table inet hyper_user_11111111\\nadd table inet hyper"))
    name = {run: fence.table(Path(run)) for run in ("/gone", "/lives", "/machines", "/own")}
    asyncio.run(nftables.apply(fence.raised(name["/own"])))
    found = [asyncio.run(fence.Fence(Path("/own")).sweep())]
    left = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout
    for process in (machine, lives):
        process.kill()
        process.wait()
    found.append(asyncio.run(fence.Fence(Path("/own")).sweep()))
    print(json.dumps([name, found, sorted(left.split("\\n"))]))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_tables_of_daemons_that_are_gone() -> None:
    """They go unless a machine of theirs runs, or nothing can be known of who made them."""
    done = subprocess.run(
        ["unshare", "--net", sys.executable, "-c", textwrap.dedent(SCRIPT)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    name, found, left = json.loads(done.stdout)
    assert [sorted(names) for names in found] == [[name["/gone"]], sorted([name["/lives"], name["/machines"]])]
    kept = [name["/lives"], name["/machines"], name["/own"], "inet hyper_user_00000000", "inet hyper_user_11111111"]
    assert [t for t in left if t] == sorted(f"table {n}" for n in (*kept, "inet hyper"))
