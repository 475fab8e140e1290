# SPDX-License-Identifier: Apache-2.0
"""Write the corpus that is kept here: small inputs that reach much, most of them sound. `python -m fuzz.seeds`"""

from __future__ import annotations

import gzip
import io
import json
import struct
import tarfile
from collections.abc import Iterator
from pathlib import Path

from dnslib import DNSRecord

from hypercontainer.cri.streaming.spdy_frames import Encoder, Why
from hypercontainer.protocol.constants import Tag, Type
from hypercontainer.protocol.messages import GuestContainer, GuestFile, GuestMount, GuestProcess, Interface
from hypercontainer.protocol.streams import Data, Window, encode_data, encode_window
from hypercontainer.protocol.wire import encode_attrs, encode_frame

from .targets import TOKEN

HERE = Path(__file__).resolve().parent
TREE = HERE.parent
_DIGEST = "sha256:" + "0" * 64


def _frames() -> Iterator[bytes]:
    hello = encode_attrs([
        (Tag.VERSION, 1), (Tag.KERNEL, "6.1"), (Tag.VALUE, "0.1"), (Tag.UPTIME_MS, 5),
        (Tag.PROCESS, [(Tag.ID, 3), (Tag.PID, 2), (Tag.STDIN_ACK, 10), (Tag.STDIN_EOF, 0)]),
    ])  # fmt: skip
    error = encode_attrs([(Tag.CODE, 2), (Tag.ERRNO, 2), (Tag.EXIT_STATUS, 127), (Tag.MESSAGE, "no such file")])
    yield TOKEN + encode_frame(Type.REPLY, 1, hello) + encode_frame(Type.ERROR, 2, error)
    yield b"torn" + TOKEN + encode_frame(Type.EXITED, 3, encode_attrs([(Tag.CODE, 7)]))
    golden = [path.read_bytes() for path in sorted((TREE / "tests/golden").glob("*.bin"))]
    yield TOKEN + b"".join(encode_frame(Type(frame[4]), 1, frame[12:]) for frame in golden)


def _streams() -> Iterator[bytes]:
    data = encode_frame(Type.DATA, 1, encode_data(Data(1, 0, b"hello", False)))
    window = encode_frame(Type.WINDOW, 1, encode_window(Window(0, 0, 65536, False)))
    yield data + window + encode_frame(Type.DATA, 2, encode_data(Data(1, 5, b"", True)))
    yield (
        window + encode_frame(Type.WINDOW, 1, encode_window(Window(0, 100, 65636, False))) + encode_frame(Type.REPLY, 7)
    )


def _tar(format_: int, *, pipe: bool = True) -> bytes:
    out = io.BytesIO()
    long = "d/" + "n" * (60 if format_ == tarfile.USTAR_FORMAT else 120)
    with tarfile.open(fileobj=out, mode="w", format=format_) as tar:
        for name, kind, content in (("d", tarfile.DIRTYPE, b""), ("d/f", tarfile.REGTYPE, b"content"),
                                    (long, tarfile.REGTYPE, b"x"), ("d/s", tarfile.SYMTYPE, b""),
                                    ("d/h", tarfile.LNKTYPE, b""), ("d/.wh.f", tarfile.REGTYPE, b""),
                                    ("d/.wh..wh..opq", tarfile.REGTYPE, b""),
                                    ("d/p", tarfile.FIFOTYPE, b"")):  # fmt: skip
            if kind == tarfile.FIFOTYPE and not pipe:
                continue
            info = tarfile.TarInfo(name)
            info.type, info.size, info.mtime = kind, len(content), 1.5
            info.linkname = {"d/s": "../../etc/passwd", "d/h": "d/f"}.get(name, "")
            if format_ == tarfile.PAX_FORMAT and kind == tarfile.REGTYPE:
                info.pax_headers = {"SCHILY.xattr.user.a": "b", "SCHILY.acl.access": "user::rw-,group::r--,other::r--"}
            tar.addfile(info, io.BytesIO(content))
    return out.getvalue()


def _archives() -> Iterator[bytes]:
    for name, document in (
        ("manifest.json", [{"RepoTags": ["a:b"]}]),
        ("index.json", {"manifests": [{"annotations": {"org.opencontainers.image.ref.name": "a"}}]}),
    ):
        out = io.BytesIO()
        with tarfile.open(fileobj=out, mode="w") as tar:
            data = json.dumps(document).encode()
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
        yield out.getvalue()


def _manifests() -> Iterator[bytes]:
    blob = {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": _DIGEST, "size": 1}
    platform = {"os": "linux", "architecture": "amd64"}
    for document in (
        {"schemaVersion": 2, "config": blob, "layers": [blob]},
        {"schemaVersion": 2, "manifests": [{**blob, "platform": platform}]},
        {**platform, "rootfs": {"type": "layers", "diff_ids": [_DIGEST]}, "config": {"Cmd": ["sh"]}},
    ):
        yield json.dumps(document).encode()


def _dns() -> Iterator[bytes]:
    for name, kind in (
        ("web", "A"),
        ("web", "AAAA"),
        ("2.0.0.10.in-addr.arpa", "PTR"),
        ("example.org", "ANY"),
        ("x", "MX"),
    ):
        question = DNSRecord.question(name, kind)
        question.header.id = 1  # dnslib's own is another one each time
        yield bytes(question.pack())


def _podfiles() -> Iterator[bytes]:
    for directory in ("tests/podfiles", "tests/podfiles-bad", "examples"):
        for path in sorted((TREE / directory).rglob("*")):
            if path.suffix in (".json", ".yaml", ".yml") and path.stat().st_size < 4096:
                yield path.read_bytes()


def _disks() -> Iterator[bytes]:
    head = struct.pack(">4sIQIIQIIQQIIQ", b"QFI\xfb", 3, 0, 0, 16, 1 << 20, 0, 1, 1 << 16, 1 << 17, 1, 0, 0)
    yield head + struct.pack(">QQQII", 0, 0, 0, 4, 104) + struct.pack(">II", 0x6803F857, 8) + bytes(16)
    yield bytes(64) + struct.pack("<I", 0xBEDA107F) + bytes(400)


def _acls() -> Iterator[bytes]:
    yield struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", *e) for e in ((1, 6, 2**32 - 1), (4, 4, 2**32 - 1), (32, 4, 2**32 - 1))
    )
    yield b"user::rw-,user:7:r--,group::r--,mask::r--,other::r--"


def _references() -> Iterator[bytes]:
    yield from (b"busybox", b"localhost:5000/a/b:c", b"a@" + _DIGEST.encode(), b"oci-archive:/a/b.tar:c", b"docker://a")


def _guest_requests() -> Iterator[bytes]:
    container = GuestContainer("c1", "disk", "erofs", files=(GuestFile("/etc/hosts", b"x"),),
                               mounts=(GuestMount("tmpfs", "tmpfs", "/tmp"),))  # fmt: skip
    process = GuestProcess(args=("sh", "-c", "true"), env=("A=b",), container="c1", rlimits=((7, 1, 2),))
    filtered = GuestProcess(args=("true",), filter=bytes((6, 0, 0, 0, 0, 0, 0xFF, 0x7F)), filter_flags=4)
    interface = Interface("eth0", ("10.0.0.2/24", "fd00::2/64"), ("10.0.0.1",), mac="52:54:00:00:00:01")
    for kind, message in ((0, container), (1, process), (1, filtered), (2, interface)):
        yield bytes([kind]) + encode_attrs(message.attrs())


def _users() -> Iterator[bytes]:
    yield b"alice:staff\nroot:x:0:0:root:/root:/bin/sh\nalice:x:1000:1000::/home/alice:\nstaff:x:50:alice,bob\n"
    yield b"1000\nx:x:1000:7:a:/:/\n" + b"g:x:9:x\n" * 3


def _layers() -> Iterator[bytes]:
    for format_ in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        yield _tar(format_)
    yield gzip.compress(_tar(tarfile.PAX_FORMAT), mtime=0)


def _copies() -> Iterator[bytes]:
    for format_ in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        yield _tar(format_, pipe=False)
    yield _tar(tarfile.PAX_FORMAT)


def _spdy() -> Iterator[bytes]:
    encoder = Encoder()
    kinds = ("error", "stdin", "stdout", "stderr", "resize")
    opened = b"".join(encoder.opened(2 * n + 1, {"streamtype": kind}) for n, kind in enumerate(kinds))
    yield opened + encoder.data(3, b"input" * 40) + encoder.data(3, b"", fin=True) + encoder.ping(1)
    encoder = Encoder()
    port = encoder.opened(1, {"streamtype": "data", "port": "80", "requestid": "0"}, fin=True)
    yield port + encoder.replied(2) + encoder.reset(1, Why.CANCEL) + encoder.go_away(1)


def _profiles() -> Iterator[bytes]:
    argument = {"index": 0, "op": "SCMP_CMP_MASKED_EQ", "value": 0x7E020000, "valueTwo": 0}
    yield json.dumps({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "flags": ["SECCOMP_FILTER_FLAG_LOG"],
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]}],
        "syscalls": [
            {"names": ["read", "openat"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [argument], "excludes": {"caps": ["CAP_BPF"]}},
        ],
    }).encode()  # fmt: skip
    rule = {"name": "mkdir", "action": "SCMP_ACT_TRACE", "errnoRet": 5, "args": [dict(argument, op="SCMP_CMP_GT")] * 2}
    yield json.dumps({"defaultAction": "SCMP_ACT_LOG", "architectures": ["SCMP_ARCH_ARM"], "syscalls": [rule]}).encode()


def _hellos() -> Iterator[bytes]:
    """A client's, of TLS 1.2 and 1.3, made by hand: OpenSSL's have other random numbers each time."""

    def extension(kind: int, body: bytes) -> bytes:
        return struct.pack("!HH", kind, len(body)) + body

    def hello(*extensions: bytes) -> bytes:
        whole = b"".join(extensions)
        body = b"\x03\x03" + bytes(32) + b"\0" + b"\0\x02\x13\x01" + b"\x01\0" + struct.pack("!H", len(whole)) + whole
        return b"\x01" + len(body).to_bytes(3, "big") + body

    def records(message: bytes, size: int) -> bytes:
        pieces = [message[at : at + size] for at in range(0, len(message), size)]
        return b"".join(b"\x16\x03\x01" + struct.pack("!H", len(piece)) + piece for piece in pieces)

    name = b"api.example.com"
    named = extension(0, struct.pack("!HBH", len(name) + 3, 0, len(name)) + name)
    versions = extension(43, b"\x02\x03\x04")
    yield records(hello(named, versions), 1 << 14)
    yield records(hello(versions, named), 20) + b"\x17\x03\x03\0\x01x"
    yield records(hello(versions), 1 << 14)
    yield records(hello(named, extension(0xFE0D, bytes(9))), 1 << 14)


def _requests() -> Iterator[bytes]:
    yield b"GET /a?b HTTP/1.1\r\nHost: a.example\r\nX-Key: v\r\n\r\nGET /2 HTTP/1.1\r\nHost: A.Example.:80\r\n\r\n"
    yield b"POST http://a.example/ HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\nbody!"
    chunks = b"5;x=y\r\nbody!\r\n0\r\nLast: 1\r\n\r\n"
    yield b"PUT / HTTP/1.1\r\nHost: a.example\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n" + chunks
    yield b"OPTIONS * HTTP/1.1\r\nHost: a.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nbytes"
    yield b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example:443\r\n\r\n"


SEEDS = {
    "frames": _frames, "streams": _streams, "layers": _layers, "archives": _archives, "manifests": _manifests,
    "dns": _dns, "podfiles": _podfiles, "disks": _disks, "copies": _copies, "acls": _acls, "references": _references,
    "spdy": _spdy, "profiles": _profiles, "hellos": _hellos, "requests": _requests,
    "hyperstart-frames": _guest_requests, "hyperstart-tar": _layers, "hyperstart-users": _users,
}  # fmt: skip


def main() -> None:
    for name, seeds in SEEDS.items():
        directory = HERE / "corpus" / name
        directory.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(seeds()):
            (directory / f"seed-{number:02}").write_bytes(seed)


if __name__ == "__main__":
    main()
