# SPDX-License-Identifier: Apache-2.0
"""Decoders of hyperd and hyperctl, each as a function of bytes.

A target returns True when the input was taken, False when it was refused in
the way that the decoder promises. Any other exception is a finding.
"""

from __future__ import annotations

import contextlib
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h11

from hypercontainer.cri.streaming.spdy_frames import Decoder, Opened
from hypercontainer.cri.streaming.spdy_headers import BLOCK_MAX
from hypercontainer.errors import HyperError, InvalidArgument, NotFound, Unsupported
from hypercontainer.guest.replies import error_of, pid_of
from hypercontainer.hyperctl.cp import ByteStream, unpack
from hypercontainer.hypervisor.qemu.formats import check_image
from hypercontainer.images import acl, archive, layout
from hypercontainer.images import manifests as documents
from hypercontainer.images.limits import Budget, Limits
from hypercontainer.images.tree import Tree
from hypercontainer.model.architectures import MACHINES
from hypercontainer.model.egress import canonical_name
from hypercontainer.model.reference import parse_reference, parse_source
from hypercontainer.network.dns import NameServer
from hypercontainer.network.egress import hello, http
from hypercontainer.network.egress.refused import Refused
from hypercontainer.podfile.convert import convert, files_to_fetch
from hypercontainer.podfile.load import load
from hypercontainer.protocol.constants import Type
from hypercontainer.protocol.messages import ExitStatus, Hello, decode_process_list
from hypercontainer.protocol.streams import Receiver, Sender, decode_data, decode_window
from hypercontainer.protocol.usage import GuestStats
from hypercontainer.protocol.wire import Frame, FrameReader, ProtocolError, decode_attrs
from hypercontainer.seccomp.compile import check_profile

Target = Callable[[bytes], bool]
TOKEN = b"0123456789abcdef"
_SMALL = Limits(size=1 << 24, files=2000, ratio=1000, layers=8)
_UNPACKED_MAX = 1 << 24  # bytes that an input may become


def frames(data: bytes) -> bool:
    """What a guest sends, frame by frame, each read as every kind of answer."""
    reader = FrameReader(TOKEN)
    seen = False
    try:
        for at in range(0, len(data), 97):  # as they arrive: cut anywhere
            for frame in reader.feed(data[at : at + 97]):
                seen = _answers(frame) or seen
    except ProtocolError:
        return False
    return seen


def _answers(frame: Frame) -> bool:
    body, taken = frame.body, False
    for read in (
        Hello.decode, GuestStats.decode, decode_process_list, error_of, pid_of, decode_data, decode_window,
        lambda b: ExitStatus.decode(dict(decode_attrs(b))),
    ):  # fmt: skip
        with contextlib.suppress(ProtocolError):
            read(body)
            taken = True
    return taken


def streams(data: bytes) -> bool:
    """Output and credits in any order: never more kept than a window, never a byte out of place."""
    receiver, sender = Receiver(1), Sender()
    sender.write(bytes(range(256)) * 1024)
    reader = FrameReader(TOKEN)
    held = 0
    try:
        for frame in reader.feed(TOKEN + data):
            if frame.type == Type.DATA:
                held += len(receiver.data(decode_data(frame.body)))
                assert held <= receiver.acknowledged + (256 << 10), "more than the credit was taken"
                receiver.consumed(held // 2 if frame.id % 2 else 0)
                held -= held // 2 if frame.id % 2 else 0
            elif frame.type == Type.WINDOW:
                sender.acknowledge(decode_window(frame.body))
                sent = sender.frames()
                assert sum(map(len, sent)) <= (64 << 10) + 16 * len(sent), "more was sent than a guest has room"
            elif frame.id % 7 == 0:
                receiver.rewind()
                held = 0
    except ProtocolError:
        return False
    return True


def layers(data: bytes) -> bool:
    """An image's layer: compressed or not, a tar stream of any kind, merged onto another."""
    tree = Tree(Budget(_SMALL, len(data)))
    try:
        plain = _uncompressed(data)
        tree.apply(0, io.BytesIO(plain))
        tree.apply(1, io.BytesIO(plain))
    except (InvalidArgument, *archive.CORRUPT):
        return False
    return True


def _uncompressed(data: bytes) -> bytes:
    out = bytearray()
    for chunk in archive.uncompressed(io.BytesIO(data)):
        out += chunk
        if len(out) > _UNPACKED_MAX:
            raise InvalidArgument("is larger than this target looks at")
    return bytes(out)


def archives(data: bytes) -> bool:
    """docker-archive and oci-archive, of which the names are read."""
    with tempfile.TemporaryFile() as f:
        f.write(data)
        f.flush()
        try:
            archive.names(f.fileno())
        except InvalidArgument:
            return False
    return True


def manifests(data: bytes) -> bool:
    """The documents of an image: an index, a manifest, a configuration."""
    taken = False
    documents.is_index(data)
    with contextlib.suppress(InvalidArgument, NotFound):
        documents.choose_platform(data, "linux", "amd64", "")
        taken = True
    with tempfile.TemporaryDirectory() as directory:
        store = layout.Layout(Path(directory))
        store.create()
        digest = store.blobs.add(data).digest
        blob = f'{{"mediaType": "", "digest": "{digest}", "size": 1}}'
        manifest = store.blobs.add(f'{{"config": {blob}, "layers": [{blob}]}}'.encode())
        for one in (digest, manifest.digest):
            with contextlib.suppress(InvalidArgument, NotFound):
                store.load(one)
                taken = True
    return taken


def dns(data: bytes) -> bool:
    """A question of a pod, or what calls itself one; the answer must be one that can be read."""
    from dnslib import DNSRecord

    server = NameServer(lambda name, client: ["10.0.0.2", "fd00::2"] if name == "web" else [],
                        lambda address: "web" if address == "10.0.0.2" else None, forward=True)  # fmt: skip
    try:
        answer = server.answer(data)
    except ValueError:
        return False
    if answer is not None:
        DNSRecord.parse(answer)
    return True


def podfiles(data: bytes) -> bool:
    """A podfile, a compose file or manifests of Kubernetes, up to the plan of a pod."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "podfile"
        path.write_bytes(data)
        try:
            found = load(str(path), name="")
            convert(found.podfile, {f.uri: b"content" for f in files_to_fetch(found.podfile)})
        except InvalidArgument:
            return False
    return True


def disks(data: bytes) -> bool:
    """The header of a disk image that somebody brings along."""
    with tempfile.TemporaryFile() as f:
        f.write(data)
        f.flush()
        taken = False
        for kind in ("qcow2", "vdi"):
            with contextlib.suppress(InvalidArgument):
                check_image(f.fileno(), kind, Path("disk"))
                taken = True
    return taken


def copies(data: bytes) -> bool:
    """What `cp` gets from a container: nothing may appear beside the directory that it is for."""
    with tempfile.TemporaryDirectory() as directory:
        inside, beside = Path(directory) / "to", Path(directory) / "beside"
        inside.mkdir()
        beside.write_bytes(b"untouched")
        taken = False
        with contextlib.suppress(HyperError, OSError):
            unpack(ByteStream(iter((data,))), "/dir/.", inside, False, keep_owner=False)
            taken = True
        assert sorted(os.listdir(directory)) == ["beside", "to"] and beside.read_bytes() == b"untouched", "it got out"
        for at, _, names in os.walk(inside):
            for name in names:
                mode = os.lstat(os.path.join(at, name)).st_mode
                assert not mode & 0o6000, f"{name} has a mode that gives rights"
    return taken


def acls(data: bytes) -> bool:
    """Access control lists of an image, as the kernel's bytes and as text."""
    taken = False
    with contextlib.suppress(ValueError):
        acl.encode(acl.decode(data))
        taken = True
    with contextlib.suppress(ValueError):
        acl.encode(acl.parse(data.decode("utf-8", "surrogateescape")))
        taken = True
    return taken


def references(data: bytes) -> bool:
    """Names of images."""
    text = data.decode("utf-8", "replace")
    taken = False
    for parse in (parse_reference, parse_source):
        with contextlib.suppress(InvalidArgument):
            parse(text)
            taken = True
    return taken


def spdy(data: bytes) -> bool:
    """What a client of the streaming server sends: frames of SPDY, and headers in them."""
    decoder = Decoder()
    taken = False
    try:
        for at in range(0, len(data), 89):  # as they arrive: cut anywhere
            for frame in decoder.feed(data[at : at + 89]):
                assert not isinstance(frame, Opened) or sum(map(len, frame.headers.values())) <= BLOCK_MAX
                taken = True
    except InvalidArgument:
        return False
    return taken


def profiles(data: bytes) -> bool:
    """Profiles of system calls, for each processor that a machine may have."""
    text, taken = data.decode("utf-8", "replace"), False
    for architecture in MACHINES:
        with contextlib.suppress(InvalidArgument, Unsupported):
            check_profile(text, architecture, 0)  # what is decoded; the rest is another process's, for seconds at most
            taken = True
    return taken


def hellos(data: bytes) -> bool:
    """What a pod begins a TLS connection with: what it asks for does not depend on the pieces in which it comes."""
    try:
        name = hello.server_name(data)
    except Refused:
        return False
    for at in range(0, len(data), 1 + len(data) // 50):
        with contextlib.suppress(Refused):  # of a piece that ends in the midst of what comes later
            assert hello.server_name(data[:at]) in (None, name), "it had another name before"
    assert name is None or canonical_name(name) == name
    return name is not None


def requests(data: bytes) -> bool:
    """Requests of a pod: as they are written anew, whoever reads them finds as many, for the same hosts."""
    out, wanted = bytearray(), []
    peer = h11.Connection(h11.CLIENT, max_incomplete_event_size=http.HEAD_MAX)
    for event in _events(data):
        if isinstance(event, h11.Request):
            try:
                host, target = http.destination(event, 80)
            except Refused:
                break
            wanted.append((host, target))
            event = h11.Request(method=event.method, target=target, headers=list(event.headers))
        out += peer.send(event) or b""
        if peer.our_state is not h11.SEND_BODY and not _next_cycle(peer):
            break
    found = [http.destination(e, 80) for e in _events(bytes(out)) if isinstance(e, h11.Request)]
    assert found == wanted, "another reader finds other requests"
    return bool(wanted)


def _events(data: bytes) -> Iterator[h11.Event]:
    """Requests and what is in them, as the relay reads them, in pieces, until one is malformed or not whole."""
    server = h11.Connection(h11.SERVER, max_incomplete_event_size=http.HEAD_MAX)
    for at in range(0, len(data), 83):
        server.receive_data(data[at : at + 83])
        while True:
            try:
                event = server.next_event()
            except h11.RemoteProtocolError:
                return
            if event is h11.PAUSED and not _answered(server):
                return
            if event is h11.NEED_DATA:
                break
            if not isinstance(event, (h11.Request, h11.Data, h11.EndOfMessage)):
                return
            yield event
            if isinstance(event, h11.Request) and event.method == b"CONNECT":
                return  # bytes, from here on


def _next_cycle(peer: h11.Connection) -> bool:
    """Its answer is whole; whether a request may follow."""
    peer.receive_data(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    while isinstance(peer.next_event(), h11.Event):
        pass
    if (peer.our_state, peer.their_state) != (h11.DONE, h11.DONE):
        return False
    peer.start_next_cycle()
    return True


def _answered(server: h11.Connection) -> bool:
    """It has got an answer; whether another request is read."""
    server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
    server.send(h11.EndOfMessage())
    if (server.our_state, server.their_state) != (h11.DONE, h11.DONE):
        return False
    server.start_next_cycle()
    return True


TARGETS: dict[str, Target] = {
    t.__name__: t
    for t in (
        frames,
        streams,
        layers,
        archives,
        manifests,
        dns,
        podfiles,
        disks,
        copies,
        acls,
        references,
        spdy,
        profiles,
        hellos,
        requests,
    )
}
