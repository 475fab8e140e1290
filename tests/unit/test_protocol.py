# SPDX-License-Identifier: Apache-2.0
"""The wire format: the header is the contract, round trips hold, garbage raises only ProtocolError."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hypercontainer.protocol import constants
from hypercontainer.protocol.constants import FIRST_TOKEN, Tag, Type
from hypercontainer.protocol.messages import (
    ExitStatus,
    GuestContainer,
    GuestFile,
    GuestMount,
    GuestProcess,
    Hello,
    Interface,
)
from hypercontainer.protocol.streams import (
    Data,
    Receiver,
    Sender,
    Window,
    decode_data,
    decode_window,
    encode_data,
    encode_window,
)
from hypercontainer.protocol.usage import BlockUsage, ContainerUsage, GuestStats, InterfaceUsage
from hypercontainer.protocol.wire import (
    FrameReader,
    ProtocolError,
    decode_attrs,
    encode_attrs,
    encode_frame,
    number,
    text,
)

values = st.recursive(
    st.integers(0, 2**64 - 1) | st.binary(max_size=200) | st.text(max_size=50),
    lambda inner: st.lists(st.tuples(st.integers(0, 65535), inner), max_size=4),
    max_leaves=12,
)
attributes = st.lists(st.tuples(st.integers(0, 65535), values), max_size=8)


def test_numbers_are_the_headers(repository: Path) -> None:
    header = (repository / "hyperstart/include/hyper_protocol.h").read_text()
    for kind, prefix, enum in (
        ("hp_type", "HP_", constants.Type),
        ("hp_tag", "HP_T_", constants.Tag),
        ("hp_error", "HP_E_", constants.GuestCode),
        ("hp_builtin", "HP_B_", constants.Builtin),
        ("hp_seccomp", "HP_SECCOMP_", constants.Seccomp),
    ):
        body = re.search(rf"enum {kind} \{{(.*?)\n\}};", header, re.S)
        assert body
        assert dict(re.findall(rf"{prefix}(\w+) = (\d+)", body[1])) == {m.name: str(m.value) for m in enum}
    for name, value in (("HP_FRAME_HEADER", constants.FRAME_HEADER), ("HP_ATTR_HEADER", constants.ATTR_HEADER)):
        assert re.search(rf"#define {name}\s+{value}\b", header)
    for name, bits in (("FRAME_MAX", 20), ("DATA_MAX", None), ("OUTPUT_RING", None), ("STDIN_RING", None)):
        found = re.search(rf"#define HP_{name}\s+\((\d+)u << (\d+)\)", header)
        assert found and int(found[1]) << int(found[2]) == getattr(constants, name), (name, bits)


@given(attributes)
def test_attributes_round_trip(attrs: list[tuple[int, object]]) -> None:
    raw = encode_attrs(attrs)  # type: ignore[arg-type]
    decoded = list(decode_attrs(raw))
    assert [t for t, _ in decoded] == [t for t, _ in attrs]
    for (_, value), (_, data) in zip(attrs, decoded, strict=True):
        if isinstance(value, int):
            assert number(data) == value
        elif isinstance(value, str):
            assert text(data) == value
        elif isinstance(value, bytes):
            assert data == value
        else:
            assert data == encode_attrs(value)  # type: ignore[arg-type]


@given(st.binary(max_size=400))
def test_garbage_raises_only_protocol_errors(raw: bytes) -> None:
    for decode in (lambda d: list(decode_attrs(d)), decode_data, decode_window):
        with contextlib.suppress(ProtocolError):
            decode(raw)
    with contextlib.suppress(ProtocolError):
        reader = FrameReader(FIRST_TOKEN)
        reader.feed(FIRST_TOKEN)
        reader.feed(raw)


@given(
    st.binary(max_size=60),
    st.lists(st.tuples(st.sampled_from(list(Type)), st.integers(0, 2**32 - 1), st.binary(max_size=80)), max_size=6),
    st.integers(1, 40),
)
def test_frames_in_any_pieces_after_any_rest(rest: bytes, frames: list[tuple[Type, int, bytes]], piece: int) -> None:
    assume(FIRST_TOKEN not in rest)
    stream = rest + FIRST_TOKEN + b"".join(encode_frame(*f) for f in frames)
    reader = FrameReader(FIRST_TOKEN)
    got = [f for at in range(0, len(stream), piece) for f in reader.feed(stream[at : at + piece])]
    assert got == [(t, i, b) for t, i, b in frames]
    assert reader.synchronised


@pytest.mark.parametrize("size", [0, 11, (1 << 20) + 1, 0xFFFFFFFF])
def test_impossible_frame_sizes(size: int) -> None:
    reader = FrameReader(FIRST_TOKEN)
    with pytest.raises(ProtocolError, match="a frame of"):
        reader.feed(FIRST_TOKEN + size.to_bytes(4, "little") + bytes(12))


def test_too_large_a_body_is_not_sent() -> None:
    with pytest.raises(ProtocolError, match="too large"):
        encode_frame(Type.DATA, 1, bytes(1 << 20))


# -- streams ------------------------------------------------------------------------


@given(st.binary(max_size=3000), st.lists(st.tuples(st.integers(0, 900), st.booleans()), max_size=30))
def test_stdin_arrives_whole_whatever_the_credits_and_reconnections(
    payload: bytes, steps: list[tuple[int, bool]]
) -> None:
    sender, received, consumed, ended = Sender(), bytearray(), 0, False
    sender.write(payload)
    sender.write_eof()

    def take(frames: list[bytes]) -> None:
        nonlocal ended
        for body in frames:
            data = decode_data(body)
            assert data.offset <= len(received)
            received.extend(data.payload[len(received) - data.offset :])
            ended = ended or data.eof

    for credit, reconnect in [*steps, (4000, False)]:
        if reconnect:
            consumed = len(received)
            sender.rewind(len(received))
        sender.acknowledge(Window(0, consumed, consumed + credit, closed=False))
        take(sender.frames())
        consumed = len(received)
    sender.acknowledge(Window(0, consumed, consumed + 4000, closed=False))
    take(sender.frames())
    assert bytes(received) == payload and ended


def test_sender_never_passes_the_limit() -> None:
    sender = Sender()
    sender.write(bytes(100_000))
    assert sender.frames() == []
    sender.acknowledge(Window(0, 0, 50_000, closed=False))
    assert sum(len(decode_data(f).payload) for f in sender.frames()) == 50_000
    assert sender.unsent == 50_000
    sender.acknowledge(Window(0, 10, 20, closed=True))
    assert sender.closed and sender.unsent == 0 and sender.frames() == []


def test_acknowledgement_of_what_was_not_sent() -> None:
    with pytest.raises(ProtocolError):
        Sender().acknowledge(Window(0, 5, 10, closed=False))


def test_receiver_drops_what_it_has_and_refuses_gaps() -> None:
    receiver = Receiver(1)
    assert receiver.data(Data(1, 0, b"hello", eof=False)) == b"hello"
    assert receiver.data(Data(1, 3, b"lo world", eof=True)) == b" world"
    assert receiver.eof
    with pytest.raises(ProtocolError, match="gap"):
        receiver.data(Data(1, 100, b"x", eof=False))


def test_receiver_asks_again_for_what_was_not_consumed() -> None:
    receiver = Receiver(1, offset=10)
    receiver.data(Data(1, 10, b"abcdef", eof=False))
    receiver.consumed(2)
    receiver.rewind()
    window = receiver.window()
    assert window == Window(1, 12, 12 + constants.OUTPUT_RING, closed=False)
    assert receiver.window() is None  # nothing new to tell


@given(st.integers(0, 255), st.integers(0, 2**64 - 1), st.binary(max_size=100), st.booleans())
def test_stream_bodies_round_trip(stream: int, offset: int, payload: bytes, flag: bool) -> None:
    data = Data(stream, offset, payload, flag)
    assert decode_data(encode_data(data)) == data
    window = Window(stream, offset, offset, flag)
    assert decode_window(encode_window(window)) == window


# -- golden frames --------------------------------------------------------------------


def golden_messages() -> dict[str, bytes]:
    """The frames in tests/golden/, which the C decoder reads too."""
    process = GuestProcess(
        args=("/bin/sh", "-c", "exit 7"),
        container="c1",
        env=("PATH=/bin", "LANG=é"),
        cwd="/srv",
        user="app:web",
        groups=("adm", "27"),
        tty=True,
        rows=24,
        columns=80,
        stdin=True,
        capabilities=0xA80425FB,
        no_new_privs=True,
        rlimits=((7, 1024, 2**64 - 1),),
        main=True,
        seccomp=constants.Seccomp.DEFAULT,
    )
    alone = GuestProcess(args=("/bin/true",), container="c1", main=True, own_pids=True, init=True)
    container = GuestContainer(
        id="c1",
        image_disk="image0",
        image_fstype="squashfs",
        scratch_disk="scratch0",
        read_only=True,
        mounts=(GuestMount("tmpfs", "/tmp", flags=6, data="size=1m"),),
        files=(GuestFile("/etc/hosts", b"127.0.0.1 x\n"),),
        sysctls=(("net.core.somaxconn", "99"),),
        masked_paths=("/proc/kcore",),
        readonly_paths=("/proc/sys",),
        memory_max=64 << 20,
        cpu_max=50_000,
        pids_max=99,
        devices=True,
    )
    interface = Interface("eth0", ("10.0.2.15/24", "fd00::2/64"), ("10.0.2.2",), 1400)
    return {
        "hello": encode_frame(
            Type.HELLO, 1, encode_attrs([(Tag.TOKEN, bytes(range(16))), (Tag.CLOCK, 1_700_000_000_000_000_000)])
        ),
        "pod_setup": encode_frame(
            Type.POD_SETUP, 2, encode_attrs([(Tag.HOSTNAME, "pod"), (Tag.INTERFACE, interface.attrs())])
        ),
        "container_create": encode_frame(Type.CONTAINER_CREATE, 3, encode_attrs(container.attrs())),
        "process_start": encode_frame(Type.PROCESS_START, 4, encode_attrs(process.attrs())),
        "process_start_alone": encode_frame(Type.PROCESS_START, 5, encode_attrs(alone.attrs())),
        "data": encode_frame(Type.DATA, 4, encode_data(Data(0, 1 << 40, b"input\0\xff", eof=True))),
        "window": encode_frame(Type.WINDOW, 4, encode_window(Window(1, 5, 262149, closed=False))),
        "exited": encode_frame(Type.EXITED, 4, encode_attrs([(Tag.SIGNAL, 9), (Tag.OOM, 1)])),
        "oom": encode_frame(Type.OOM, 0, encode_attrs([(Tag.CONTAINER, "c1"), (Tag.OOM, 2)])),
    }


@pytest.mark.parametrize("name", list(golden_messages()))
def test_golden_frames(repository: Path, name: str) -> None:
    assert (repository / f"tests/golden/{name}.bin").read_bytes() == golden_messages()[name]


# -- replies --------------------------------------------------------------------------


def test_hello_reply() -> None:
    ended = [(Tag.ID, 3), (Tag.PID, 2), (Tag.STDIN_ACK, 10), (Tag.STDIN_EOF, 1), (Tag.SIGNAL, 9), (Tag.OOM, 1)]
    body = encode_attrs(
        [
            (Tag.VERSION, 1),
            (Tag.KERNEL, "6.1"),
            (Tag.VALUE, "0.1"),
            (Tag.UPTIME_MS, 5),
            (Tag.PROCESS, ended),
            (999, b"from the future"),
        ]  # type: ignore[list-item]
    )
    hello = Hello.decode(body)
    assert (hello.version, hello.kernel, hello.hyperstart, hello.uptime_ms) == (1, "6.1", "0.1", 5)
    assert hello.processes[0].exit == ExitStatus(signal=9, oom=True)
    assert hello.processes[0].exit.shell_code == 137


def test_stats_skip_unknown_tags() -> None:
    stats = GuestStats.decode(
        encode_attrs([(Tag.MEM_TOTAL, 100), (Tag.STATS, [(Tag.CONTAINER, "c"), (Tag.MEMORY, 7), (60000, 1)])])
    )
    assert stats.memory_total == 100 and stats.containers == {"c": ContainerUsage(memory=7)}


def test_counters_of_the_kernel_s_files() -> None:
    texts = [
        (Tag.CPU_STAT, "usage_usec 30\nuser_usec 20\nsystem_usec 10\nnr_periods 5\nbroken\nnone x\n"),
        (Tag.MEMORY_STAT, f"anon 8192\nfile 1\ntoo_large {2**64}\nhuge {'9' * 5000}\nnegative -1\n"),
        (Tag.IO_STAT, "254:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=0 dios=0\n8:16\nx:1 rbytes=1\n\n"),
    ]
    interface = [(Tag.NAME, "eth1"), (Tag.VALUE, " 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0")]
    stats = GuestStats.decode(
        encode_attrs([
            (Tag.INTERFACE, interface),  # type: ignore[list-item]
            (Tag.INTERFACE, [(Tag.NAME, "short"), (Tag.VALUE, "1 x")]),
            (Tag.STATS, [(Tag.CONTAINER, "c"), *texts]),
        ])
    )  # fmt: skip
    used = stats.containers["c"]
    assert used.cpu == {"usage_usec": 30, "user_usec": 20, "system_usec": 10, "nr_periods": 5}
    assert used.memory_details == {"anon": 8192, "file": 1}
    assert used.blocks == (BlockUsage(254, 0, 1, 2, 3, 4), BlockUsage(8, 16))
    assert stats.interfaces == (InterfaceUsage("eth1", 1, 2, 3, 4, 5, 6, 7, 8), InterfaceUsage("short", 1))
