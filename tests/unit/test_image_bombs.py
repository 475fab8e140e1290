# SPDX-License-Identifier: Apache-2.0
"""Images that stand for more than they are: refused soon, by little memory, with one sentence.

And in whose hands they are until then.
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import io
import os
import re
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zstandard
from isal import igzip

from hypercontainer.errors import DeadlineExceeded, InvalidArgument
from hypercontainer.images.limits import Limits
from hypercontainer.images.store import ImageStore

from .layouts import END, Maker, header

SECONDS, MEMORY = 5.0, 256 << 20  # of CPU time, as the machine may have other things to do; bytes of any one process

PULL = """
import asyncio, pathlib, resource, sys
from hypercontainer.errors import HyperError
from hypercontainer.images.store import ImageStore
async def main():
    store = ImageStore(pathlib.Path(sys.argv[2]))
    store.open()
    try:
        _, image = store.pull(sys.argv[1])
        await image
        print("pulled")
    except HyperError as error:
        print(error.code, str(error))
    used = [resource.getrusage(w) for w in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    # Of oneself by the present program only: ru_maxrss counts the one that was before exec, too.
    status = dict(line.split(":") for line in open("/proc/self/status"))
    most = max(int(status["VmHWM"].split()[0]), used[1].ru_maxrss)
    print(sum(u.ru_utime + u.ru_stime for u in used), most * 1024)
asyncio.run(main())
"""


def zeros(size: int) -> Iterator[bytes]:
    for _ in range(size >> 20):
        yield bytes(1 << 20)


def many(count: int) -> Iterator[bytes]:
    one = header("some/file") * 1000
    for _ in range(count // 1000):
        yield one
    yield END


def file_of_zeros(size: int) -> Iterator[bytes]:
    yield header("zeros", size=size)
    yield from zeros(size)
    yield END


def long_name() -> Iterator[bytes]:
    yield header("././@LongLink", b"L", 1 << 30)
    yield from zeros(1 << 30)
    yield header("x") + END


def deep_by_links() -> Iterator[bytes]:
    step = "/".join(["d"] * 1000)
    for n in range(50):
        link = tarfile.TarInfo(f"l{n}")
        link.type, link.linkname = tarfile.SYMTYPE, f"l{n - 1}/{step}" if n else step
        yield header(f"l{n - 1}/{step}/x" if n else f"{step}/x", **{"comment": "x"}) + link.tobuf(tarfile.PAX_FORMAT)
    yield END


def single(data: bytes) -> Callable[[Maker], str]:
    return lambda make: make.image(make.layer(iter([data, END])))


def of(stream: Callable[[], Iterator[bytes]], pack: str = "gzip") -> Callable[[Maker], str]:
    return lambda make: make.image(make.layer(stream(), pack), pack=pack)


def wide_window(make: Maker) -> str:
    parameters = zstandard.ZstdCompressionParameters(window_log=30, enable_ldm=True)
    data = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    tar = header("x") + END
    packed = data.compress(tar) + data.flush()
    return make.image((*make.add(packed), "sha256:" + hashlib.sha256(tar).hexdigest()), pack="zstd")


def archive(make: Maker) -> str:
    path = make.root / "image.tar.gz"
    with igzip.GzipFile(path, "wb", compresslevel=1) as out:  # type: ignore[no-untyped-call]
        for chunk in file_of_zeros(1 << 30):
            out.write(chunk)
    return f"docker-archive:{path}"


def many_layers(count: int) -> Callable[[Maker], str]:
    def make_it(make: Maker) -> str:
        layer = make.layer(iter([END]))
        return make.image(*[layer] * count)

    return make_it


BOMBS: dict[str, tuple[Callable[[Maker], str], str]] = {
    "sparse-past-the-end": (
        single(header("x", GNU__sparse__map="0,300000", GNU__sparse__size="300000")),
        "contents that are not there",
    ),
    "sparse-32-tib": (
        single(header("x", size=512, GNU__sparse__map="0,512", GNU__sparse__size=str(32 << 40)) + bytes(512)),
        "image_size",
    ),
    "name-of-1-gib": (of(long_name), "names or attributes of 1GiB"),
    "50000-deep": (single(header("/".join(["a"] * 50_000), mtime="1.5")), "of more than 4096 bytes"),
    "50000-deep-by-links": (of(deep_by_links), "directories more than 2048 deep"),
    "a-million-entries": (of(lambda: many(1_000_000)), "image_files"),
    "gzip": (of(lambda: file_of_zeros(1 << 30)), "image_ratio"),
    "zstd": (of(lambda: file_of_zeros(1 << 30), "zstd"), "image_ratio"),
    "zstd-window": (wide_window, "window of more than 128MiB"),
    "1000-layers": (many_layers(1000), "image_layers"),
    "100000-layers": (many_layers(100_000), "4 MiB"),
    "config-of-1-gb": (
        lambda make: make.image(make.layer(iter([END])), config_size=1 << 30),
        "configuration has 1073741824 bytes",
    ),
    "archive": (archive, "image_ratio"),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused(bomb: str, tmp_path: Path) -> None:
    make, why = BOMBS[bomb]
    source = make(Maker(tmp_path / "layout"))
    done = subprocess.run(
        [sys.executable, "-c", PULL, source, tmp_path / "images"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said, measured = done.stdout.splitlines()
    seconds, memory = map(float, measured.split())
    assert said.startswith("invalid_argument ") and why in said, said
    assert source in said, "the image is named"
    if bomb not in ("1000-layers", "100000-layers", "config-of-1-gb", "archive"):
        assert re.search(r"layer 1 \(sha256:[0-9a-f]{12}\)", said), "the layer is named"
    assert seconds < SECONDS and memory < MEMORY, f"{seconds} s, {memory / (1 << 20)} MiB"
    assert [p.name for d in ("blobs/sha256", "disks", "staging") for p in (tmp_path / "images" / d).iterdir()] == []


def test_many_opaque_markers_cost_little(tmp_path: Path) -> None:
    """8,000 markers over 8,000 files: each used to look at all."""
    make = Maker(tmp_path / "layout")
    lower = make.layer(iter([header("d", b"5"), *(header(f"d/{n}") for n in range(8_000)), END]))
    upper = make.layer(iter([*(header(f"d/new{n}") + header("d/.wh..wh..opq") for n in range(8_000)), END]))
    source = make.image(lower, upper)
    done = subprocess.run(
        [sys.executable, "-c", PULL, source, tmp_path / "images"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    said, measured = done.stdout.splitlines()
    assert said == "pulled"
    assert float(measured.split()[0]) < SECONDS


# -- the process that converts ------------------------------------------------------------


def workers() -> list[int]:
    """Our children that convert."""
    found = []
    for pid in map(int, Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()):
        try:
            if b"images.worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
        except OSError:
            continue
    return found


@pytest.fixture(scope="module")
def zeros_source(tmp_path_factory: pytest.TempPathFactory) -> str:
    make = Maker(tmp_path_factory.mktemp("zeros") / "layout")
    return make.image(make.layer(file_of_zeros(4 << 30)))


class Slow:
    """A store that is converting four gigabytes of zeros, as it was told to trust them."""

    def __init__(self, images: Path, source: str, **limits: float) -> None:
        self.images = images
        self.source = source
        strict = dataclasses.replace(Limits(), ratio=100_000, **limits)  # type: ignore[arg-type]
        self.store = ImageStore(self.images, limits=strict)
        self.store.open()

    async def converting(self) -> asyncio.Task[object]:
        """The pull, once its conversion tells of progress."""
        progress, image = self.store.pull(self.source)
        task = asyncio.ensure_future(image)
        async with asyncio.timeout(60):
            async for update in progress.listen():
                if update["status"] == "Extracting" and update["current"]:
                    break
        return task

    def leftovers(self) -> list[str]:
        return [p.name for d in ("blobs/sha256", "disks", "staging") for p in (self.images / d).iterdir()]


async def test_a_cancelled_pull_ends_its_conversion(tmp_path: Path, zeros_source: str) -> None:
    slow = Slow(tmp_path / "images", zeros_source)
    task = await slow.converting()
    assert len(workers()) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    async with asyncio.timeout(30):
        while workers() or slow.leftovers():
            await asyncio.sleep(0.01)


async def test_a_conversion_that_takes_too_long_is_ended(tmp_path: Path, zeros_source: str) -> None:
    slow = Slow(tmp_path / "images", zeros_source, time=0.5)
    _, image = slow.store.pull(slow.source)
    with pytest.raises(DeadlineExceeded, match=r"image oci:.* is refused: it takes .* 0.5 s .*image_time"):
        await image
    assert workers() == [] and slow.leftovers() == []


async def test_memory_is_limited(tmp_path: Path) -> None:
    make = Maker(tmp_path / "layout")
    source = make.image(make.layer(iter([*(header(f"d{n}", b"5") for n in range(50_000)), END])))
    store = ImageStore(tmp_path / "images", limits=dataclasses.replace(Limits(), memory=8 << 20))
    store.open()
    with pytest.raises(InvalidArgument, match="needs more than 8MiB of memory to be converted: raise image_memory"):
        await store.pull(source)[1]


async def test_the_conversion_has_no_rights(tmp_path: Path, zeros_source: str) -> None:
    task = await Slow(tmp_path / "images", zeros_source).converting()
    try:
        (pid,) = workers()
        status = dict(
            line.split(":\t", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":\t" in line
        )
        limits = {line[:25].strip(): line[26:].split() for line in Path(f"/proc/{pid}/limits").read_text().splitlines()}
        assert int(status["CapEff"], 16) == int(status["CapPrm"], 16) == 0
        assert status["NoNewPrivs"] == "1"
        for name in ("Max address space", "Max cpu time", "Max file size", "Max open files"):
            assert limits[name][0] != "unlimited", name
        if os.geteuid() == 0:
            assert (
                "0" not in status["Uid"].split() and "0" not in status["Gid"].split() and not status["Groups"].split()
            )
            assert limits["Max processes"][0] != "unlimited"
            assert os.readlink(f"/proc/{pid}/ns/net") != os.readlink("/proc/self/ns/net")
        opened = {os.readlink(f"/proc/{pid}/fd/{fd}") for fd in os.listdir(f"/proc/{pid}/fd")}
        assert not [path for path in opened if "index.json" in path or path.startswith("socket:")]
    finally:
        task.cancel()
        await asyncio.wait([task])


def test_a_sparse_file_is_no_bomb(tmp_path: Path) -> None:
    """As GNU tar writes them, with holes within reason."""
    with open(tmp_path / "sparse", "wb") as f:
        f.seek(200_000_000)
        f.write(b"end")
    tar = subprocess.run(["tar", "-C", tmp_path, "--sparse", "-c", "sparse"], capture_output=True, check=True).stdout
    make = Maker(tmp_path / "layout")
    source = make.image(make.layer(io.BytesIO(tar)))
    done = subprocess.run(
        [sys.executable, "-c", PULL, source, tmp_path / "images"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.startswith("pulled"), done.stdout
