# SPDX-License-Identifier: Apache-2.0
"""Numbers of the guest protocol; hyper_protocol.h says what each means.

A test compares this file with the header.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag

VERSION = 1
FIRST_TOKEN = b"\x89HYPERSTART\r\n\x1a\n\x01"
TOKEN_SIZE = 16
FRAME_HEADER = 12
ATTR_HEADER = 8
STREAM_HEADER = 16
FRAME_MAX = 1 << 20
DATA_MAX = 32 << 10
OUTPUT_RING = 256 << 10
STDIN_RING = 64 << 10

DATA_EOF = 1
WINDOW_CLOSED = 1


class Type(IntEnum):
    """What a frame is."""

    HELLO = 1
    POD_SETUP = 2
    CONTAINER_CREATE = 3
    CONTAINER_DELETE = 4
    CONTAINER_FREEZE = 5
    PROCESS_START = 6
    PROCESS_SIGNAL = 7
    PROCESS_RESIZE = 8
    PROCESS_RELEASE = 9
    STATS = 10
    PROCESS_LIST = 11
    SHUTDOWN = 12
    CONTAINER_LIMIT = 13
    REPLY = 64
    ERROR = 65
    EXITED = 66
    OOM = 67
    DATA = 128
    WINDOW = 129


class Tag(IntEnum):
    """What an attribute is."""

    VERSION = 1
    TOKEN = 2
    ENTROPY = 3
    CLOCK = 4
    PROCESS = 5
    ID = 6
    CODE = 7
    SIGNAL = 8
    OOM = 9
    STDIN_ACK = 10
    STDIN_EOF = 11
    PID = 12
    MESSAGE = 13
    ERRNO = 14
    KERNEL = 15
    HOSTNAME = 16
    INTERFACE = 17
    NAME = 18
    ADDRESS = 19
    GATEWAY = 20
    MTU = 21
    SYSCTL = 22
    VALUE = 23
    CONTAINER = 24
    IMAGE_DISK = 25
    FSTYPE = 26
    SCRATCH_DISK = 27
    READONLY = 28
    MOUNT = 29
    SOURCE = 30
    TARGET = 31
    FLAGS = 32
    FILE = 33
    CONTENT = 34
    MODE = 35
    MASKED_PATH = 36
    READONLY_PATH = 37
    MEMORY_MAX = 38
    CPU_MAX = 39
    PIDS_MAX = 40
    ARG = 41
    ENV = 42
    CWD = 43
    USER = 44
    GROUP = 45
    TTY = 46
    ROWS = 47
    COLUMNS = 48
    STDIN = 49
    CAPS = 50
    NO_NEW_PRIVS = 51
    RLIMIT = 52
    SOFT = 53
    HARD = 54
    MAIN = 55
    BUILTIN = 56
    ALL = 57
    TIMEOUT = 58
    STATS = 59
    MEMORY = 60
    CPU_USEC = 61
    PIDS = 62
    READ_BYTES = 63
    WRITE_BYTES = 64
    RX_BYTES = 65
    TX_BYTES = 66
    MEM_TOTAL = 67
    MEM_FREE = 68
    PPID = 69
    UID = 70
    START_MS = 71
    CPU_MS = 72
    FREEZE = 73
    EXIT_STATUS = 74
    UPTIME_MS = 75
    KERNEL_USED = 76
    GID = 77
    SHM_SIZE = 78
    DOWN = 79
    MAC = 80
    SPAN = 81
    BEGIN = 82
    END = 83
    PREPARED = 84
    REHEARSAL = 85
    DEVICES = 86
    SECCOMP = 87
    STDOUT_BEGIN = 88
    STDERR_BEGIN = 89
    OWN_PIDS = 90
    INIT = 91
    CAPABILITIES = 92
    CPU_STAT = 93
    MEMORY_STAT = 94
    IO_STAT = 95
    AMBIENT = 96
    FILTER = 97
    FILTER_FLAGS = 98
    HOOK = 99
    ONLY_GROUPS = 100
    SEVER = 101
    BALLOON = 102
    PIDS_OF = 103


class Capability(IntFlag):
    """What a hyperstart can do that some cannot: a machine may run one that is older than the daemon."""

    FREEZE = 1
    LIMITS = 2
    LAYER = 4
    RELAY = 8
    FILTER = 16
    HOOKS = 32
    FORK = 64
    ONLY_GROUPS = 128
    FILES = 256
    PIDS_OF = 512
    HOLD = 1024


class GuestCode(IntEnum):
    """Why the guest refused."""

    SYSTEM = 1
    MALFORMED = 2
    UNKNOWN = 3
    NOT_FOUND = 4
    EXISTS = 5
    STATE = 6
    EXEC = 7


class Seccomp(IntEnum):
    """What filters a process's system calls."""

    UNCONFINED = 0
    DEFAULT = 1


class Builtin(IntEnum):
    """What hyperstart does itself in place of a program."""

    TAR_CREATE = 1
    TAR_EXTRACT = 2
    MOUNT = 3
    UNMOUNT = 4
    DIFF = 5
    EXPORT = 6
    TCP = 7
    HTTP = 8
    FIREWALL = 9
    LAYER = 10
    RELAY = 11
    SHARE = 12
    FILES = 13
    HOLD = 14


GROUP = 2  # value of Tag.ALL: a process's group is signalled
MOUNT_VOLUME = "volume"  # type of a mount that binds what Builtin.MOUNT has mounted
BOUND_ROOT = "bind"  # in place of an image's file system: its disk is a place of what Builtin.MOUNT has mounted
MOUNT_SCRATCH = "scratch"  # type of a mount that binds a directory of the scratch disk
MOUNT_COPY_UP = 1 << 32  # an empty volume gets what the image has there
