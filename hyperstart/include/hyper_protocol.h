/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The guest protocol: what hyperd and hyperstart say to each other.
 *
 * This header is the contract; src/hypercontainer/protocol/ is its twin in
 * Python, and tests/golden/ holds frames that the tests of both sides read.
 * Numbers are append-only: a retired number is never used again.
 *
 * One ordered byte stream per VM (virtio-serial, vsock, or a socketpair in
 * tests) carries frames. All integers are little-endian.
 *
 *   0         4      6      8         12
 *   +---------+------+------+---------+------ - -
 *   | size    | type | zero | id      | body
 *   +---------+------+------+---------+------ - -
 *     u32      u16    u16    u32        size - 12 bytes
 *
 * size counts the whole frame. id is the request's number in requests,
 * replies and errors, and the process's number in everything else.
 *
 * The body of DATA and WINDOW is fixed (below). Every other body is a
 * sequence of attributes, which nest:
 *
 *   0      2      4         8
 *   +------+------+---------+------ - -
 *   | tag  | zero | length  | value (length bytes, no padding)
 *   +------+------+---------+------ - -
 *     u16    u16    u32
 *
 * A number is 8 bytes unsigned; text is UTF-8 or raw path bytes without NUL.
 * A receiver skips tags that it does not know.
 *
 * Streams. Each process has stdin (0), stdout (1) and stderr (2). Bytes are
 * counted from 0 for the whole life of the process. A sender keeps what was
 * not acknowledged and never passes the receiver's limit:
 *
 *   DATA    stream:u8 flags:u8 zero:u16 zero:u32 offset:u64 bytes...
 *           flag EOF: the stream ends after these bytes
 *   WINDOW  stream:u8 flags:u8 zero:u16 zero:u32 ack:u64 limit:u64
 *           "I have all bytes below ack; send none at or above limit"
 *           flag CLOSED: nobody reads any more, drop the rest
 *
 * Connection. A connection begins with 16 token bytes from the host. The
 * guest throws away what precedes them (the torn end of an older connection),
 * sends the same 16 bytes back, and frames follow in both directions. The
 * first frame is HELLO, which carries the token of the next connection; the
 * first token is HP_FIRST_TOKEN. After HELLO every sender goes back to the
 * last acknowledged byte: stdin to what the HELLO reply names, stdout and
 * stderr to what the host's next WINDOW names. An exit status is repeated
 * until the process is released. So nothing is lost with a connection.
 */
#ifndef HYPER_PROTOCOL_H
#define HYPER_PROTOCOL_H

#define HP_VERSION       1
#define HP_FIRST_TOKEN   "\x89HYPERSTART\r\n\x1a\n\x01" /* 16 bytes */
#define HP_TOKEN_SIZE    16
#define HP_FRAME_HEADER  12
#define HP_ATTR_HEADER   8
#define HP_STREAM_HEADER 16
#define HP_FRAME_MAX     (1u << 20)
#define HP_DATA_MAX      (32u << 10)  /* payload of one DATA frame */
#define HP_OUTPUT_RING   (256u << 10) /* kept per stdout/stderr until acknowledged */
#define HP_STDIN_RING    (64u << 10)  /* the guest's window for stdin */

enum hp_type {
	/* requests, host to guest */
	HP_HELLO = 1,
	HP_POD_SETUP = 2,
	HP_CONTAINER_CREATE = 3,
	HP_CONTAINER_DELETE = 4,
	HP_CONTAINER_FREEZE = 5,
	HP_PROCESS_START = 6,
	HP_PROCESS_SIGNAL = 7,
	HP_PROCESS_RESIZE = 8,
	HP_PROCESS_RELEASE = 9,
	HP_STATS = 10,
	HP_PROCESS_LIST = 11,
	HP_SHUTDOWN = 12,
	HP_CONTAINER_LIMIT = 13, /* ID; MEMORY_MAX, CPU_MAX, PIDS_MAX: 0 is none, absent as it is */
	/* guest to host */
	HP_REPLY = 64,
	HP_ERROR = 65,
	HP_EXITED = 66, /* id: process; CODE or SIGNAL, OOM */
	HP_OOM = 67,    /* id: 0; CONTAINER, of which the kernel killed OOM processes for memory */
	/* both ways */
	HP_DATA = 128,
	HP_WINDOW = 129,
};

enum hp_flag {
	HP_DATA_EOF = 1,
	HP_WINDOW_CLOSED = 1,
};

/* Tags. "n" number, "t" text, "b" bytes, "{" nested, "*" repeated. */
enum hp_tag {
	HP_T_VERSION = 1,        /* n  */
	HP_T_TOKEN = 2,          /* b  token of the next connection */
	HP_T_ENTROPY = 3,        /* b  mixed into and credited to the kernel's pool */
	HP_T_CLOCK = 4,          /* n  ns since the epoch */
	HP_T_PROCESS = 5,        /* {* HELLO reply: one per process not released */
	HP_T_ID = 6,             /* n process number, or t container name */
	HP_T_CODE = 7,           /* n  exit code; in ERROR an enum hp_error */
	HP_T_SIGNAL = 8,         /* n  */
	HP_T_OOM = 9,            /* n  1: the kernel killed for memory */
	HP_T_STDIN_ACK = 10,     /* n  bytes of stdin that the guest has */
	HP_T_STDIN_EOF = 11,     /* n  1: the guest has seen the end of stdin */
	HP_T_PID = 12,           /* n  as seen inside the pod */
	HP_T_MESSAGE = 13,       /* t  */
	HP_T_ERRNO = 14,         /* n  Linux errno, 0 if none */
	HP_T_KERNEL = 15,        /* t  uname -r */
	HP_T_HOSTNAME = 16,      /* t  */
	HP_T_INTERFACE = 17,     /* {* NAME ADDRESS* GATEWAY* MTU DOWN MAC; in STATS, those that are up: NAME VALUE */
	HP_T_NAME = 18,          /* t  */
	HP_T_ADDRESS = 19,       /* t* CIDR */
	HP_T_GATEWAY = 20,       /* t* */
	HP_T_MTU = 21,           /* n  */
	HP_T_SYSCTL = 22,        /* {* NAME VALUE */
	HP_T_VALUE = 23,         /* t  of an INTERFACE in STATS: its counters, as in /proc/net/dev */
	HP_T_CONTAINER = 24,     /* t  container name; absent: outside of all */
	HP_T_IMAGE_DISK = 25,    /* t  serial number of the image's disk; FSTYPE bind: a place below the volumes */
	HP_T_FSTYPE = 26,        /* t  */
	HP_T_SCRATCH_DISK = 27,  /* t serial number; absent: upper layer on tmpfs */
	HP_T_READONLY = 28,      /* n  */
	HP_T_MOUNT = 29,         /* {* FSTYPE SOURCE TARGET FLAGS VALUE; see below */
	HP_T_SOURCE = 30,        /* t  */
	HP_T_TARGET = 31,        /* t  */
	HP_T_FLAGS = 32,         /* n  MS_* */
	HP_T_FILE = 33,          /* {* TARGET CONTENT MODE UID GID */
	HP_T_CONTENT = 34,       /* b  */
	HP_T_MODE = 35,          /* n  */
	HP_T_MASKED_PATH = 36,   /* t* */
	HP_T_READONLY_PATH = 37, /* t* */
	HP_T_MEMORY_MAX = 38,    /* n  bytes */
	HP_T_CPU_MAX = 39,       /* n  microseconds per 100 ms */
	HP_T_PIDS_MAX = 40,      /* n  */
	HP_T_ARG = 41,           /* t* */
	HP_T_ENV = 42,           /* t* NAME=value */
	HP_T_CWD = 43,           /* t  */
	HP_T_USER = 44,          /* t  user[:group], names or numbers */
	HP_T_GROUP = 45,         /* t* additional groups */
	HP_T_TTY = 46,           /* n  */
	HP_T_ROWS = 47,          /* n  */
	HP_T_COLUMNS = 48,       /* n  */
	HP_T_STDIN = 49,         /* n  1: keep stdin open */
	HP_T_CAPS = 50,          /* n  bit mask of CAP_* */
	HP_T_NO_NEW_PRIVS = 51,  /* n */
	HP_T_RLIMIT = 52,        /* {* ID SOFT HARD; ID is RLIMIT_* */
	HP_T_SOFT = 53,          /* n  */
	HP_T_HARD = 54,          /* n  */
	HP_T_MAIN = 55,          /* n  1: when this ends, all of the container does */
	HP_T_BUILTIN = 56,       /* n  enum hp_builtin instead of a program */
	HP_T_ALL = 57,           /* n  1: signal every process of the container; 2: of the process's group */
	HP_T_TIMEOUT = 58,       /* n  ms */
	HP_T_STATS = 59,         /* {* CONTAINER and the numbers below */
	HP_T_MEMORY = 60,        /* n  bytes used */
	HP_T_CPU_USEC = 61,      /* n  */
	HP_T_PIDS = 62,          /* n  */
	HP_T_READ_BYTES = 63,    /* n  */
	HP_T_WRITE_BYTES = 64,   /* n  */
	HP_T_RX_BYTES = 65,      /* n  of the pod */
	HP_T_TX_BYTES = 66,      /* n  of the pod */
	HP_T_MEM_TOTAL = 67,     /* n  of the guest */
	HP_T_MEM_FREE = 68,      /* n  of the guest: free and page cache */
	HP_T_PPID = 69,          /* n  */
	HP_T_UID = 70,           /* n  */
	HP_T_START_MS = 71,      /* n  since the guest's boot */
	HP_T_CPU_MS = 72,        /* n  */
	HP_T_FREEZE = 73,        /* n  1: answered when all stand still, an error after 5 s; 0: they go on */
	HP_T_EXIT_STATUS = 74,   /* n  in ERROR of PROCESS_START: 126 or 127 */
	HP_T_UPTIME_MS = 75,     /* n  */
	HP_T_KERNEL_USED = 76,   /* n  bytes that the kernel itself holds */
	HP_T_GID = 77,           /* n  */
	HP_T_SHM_SIZE = 78,      /* n  bytes of the pod's /dev/shm */
	HP_T_DOWN = 79,          /* n  1: take the interface down, and its ADDRESSes away */
	HP_T_MAC = 80,           /* b  6 bytes; the NIC's own if absent */
	HP_T_SPAN = 81,          /* {* NAME BEGIN END: where the time of a request went */
	HP_T_BEGIN = 82,         /* n  ns since the epoch, by the guest's clock */
	HP_T_END = 83,           /* n  */
	HP_T_PREPARED = 84,      /* t  CONTAINER_CREATE: of this one, with other ID, FILEs, limits */
	HP_T_REHEARSAL = 85,     /* n  1: kill it at its first system call with an effect */
	HP_T_DEVICES = 86,       /* n  1: the container may open any device, not just those of Docker's list */
	HP_T_SECCOMP = 87,       /* n  enum hp_seccomp; absent: unconfined */
	HP_T_STDOUT_BEGIN = 88,  /* n  HELLO: offset of the first byte that is kept */
	HP_T_STDERR_BEGIN = 89,  /* n */
	HP_T_OWN_PIDS = 90,     /* n  1: process 1 of a PID namespace of the container's, which its further ones join */
	HP_T_INIT = 91,         /* n  1: below an init, which hands on signals and reaps */
	HP_T_CAPABILITIES = 92, /* n  HELLO: bit mask of enum hp_capability; absent: HP_C_FREEZE alone */
	/* In STATS: files of the container's control group, as the kernel writes them. */
	HP_T_CPU_STAT = 93,    /* t  */
	HP_T_MEMORY_STAT = 94, /* t  */
	HP_T_IO_STAT = 95,     /* t  */
	HP_T_AMBIENT = 96,     /* n  of CAPS, those that its programs inherit, who is not root, too */
	/* In SECCOMP's place: a program for seccomp(2), struct sock_filter one after another, 4096 at most, and its
	   flags. */
	HP_T_FILTER = 97,       /* b  */
	HP_T_FILTER_FLAGS = 98, /* n  SECCOMP_FILTER_FLAG_LOG, SECCOMP_FILTER_FLAG_SPEC_ALLOW */
	HP_T_ONLY_GROUPS = 100, /* n  1: no groups that the container's own table has for USER */
	HP_T_HOOK = 99,         /* {* SOURCE ARG ENV VALUE TIMEOUT: a program that is run first, with what it reads */
	/* In POD_SETUP, taken in their order among its INTERFACEs. */
	HP_T_SEVER = 101,   /* n  1: reset all TCP connections that leave the machine */
	HP_T_BALLOON = 102, /* n  0: the kernel reports no free pages to the hypervisor any more */
	HP_T_PIDS_OF = 103, /* t  of a main process: it is in the PID namespace of this container, which runs */
};

/* What a hyperstart can do that some cannot. A machine may run one that is older than the daemon. */
enum hp_capability {
	HP_C_FREEZE = 1,        /* CONTAINER_FREEZE */
	HP_C_LIMITS = 2,        /* CONTAINER_LIMIT */
	HP_C_LAYER = 4,         /* HP_B_LAYER */
	HP_C_RELAY = 8,         /* HP_B_RELAY */
	HP_C_FILTER = 16,       /* FILTER */
	HP_C_HOOKS = 32,        /* HOOK */
	HP_C_FORK = 64,         /* SEVER, BALLOON */
	HP_C_ONLY_GROUPS = 128, /* ONLY_GROUPS */
	HP_C_FILES = 256,       /* HP_B_FILES; ALL 2 */
	HP_C_PIDS_OF = 512,     /* PIDS_OF */
	HP_C_HOLD = 1024,       /* HP_B_HOLD */
};

enum hp_error {
	HP_E_SYSTEM = 1,    /* a system call failed, see ERRNO */
	HP_E_MALFORMED = 2, /* the frame or one of its attributes */
	HP_E_UNKNOWN = 3,   /* no such request */
	HP_E_NOT_FOUND = 4, /* no such container or process */
	HP_E_EXISTS = 5,
	HP_E_STATE = 6, /* not now */
	HP_E_EXEC = 7,  /* the program could not be started, see EXIT_STATUS */
};

enum hp_seccomp {
	HP_SECCOMP_UNCONFINED = 0,
	HP_SECCOMP_DEFAULT = 1, /* Docker's default profile, by the process's CAPS */
};

enum hp_builtin {
	HP_B_TAR_CREATE = 1,  /* ARG[0]: path; a second ARG: follow a link; tar on stdout */
	HP_B_TAR_EXTRACT = 2, /* ARG[0]: directory; tar on stdin */
	/* The following run outside of containers. */
	HP_B_MOUNT = 3,    /* ARG: volume's name, type ("auto" tries), source ("disk:SERIAL"), MS_* flags, options */
	HP_B_UNMOUNT = 4,  /* ARG[0]: volume's name */
	HP_B_DIFF = 5,     /* ARG[0]: container; "A|C|D path NUL" on stdout */
	HP_B_EXPORT = 6,   /* ARG[0]: container; tar of its root on stdout */
	HP_B_TCP = 7,      /* ARG: address, port, timeout in ms: exit status 0 when it connects */
	HP_B_HTTP = 8,     /* ARG: address, port, timeout in ms, path, "Name: value"*: 0 for 200 to 399 */
	HP_B_FIREWALL = 9, /* ARG*: addresses of lo; a batch of nfnetlink messages on stdin */
	HP_B_LAYER = 10,   /* ARG[0]: container, ARG*: paths of its mounts; tar of what it has changed, on stdout */
	HP_B_RELAY = 11, /* ARG: port, timeout in ms: a TCP connection within the pod, its bytes on stdin and stdout */
	HP_B_SHARE = 12, /* ARG: volume's name, channel (hyperstart/src/port.h) to which its FUSE messages go */
	HP_B_FILES = 13, /* ARG: verb, path, option: in a container */
	HP_B_HOLD = 14,  /* ARG: volume's name, and ms: how long stdin may say nothing, how long it lasts at most */
};

/*
 * Verbs of HP_B_FILES; 2 is the exit status when there is no such path, other errors are on stderr:
 *
 *   list    PATH DEPTH           an entry each: "KIND MODE UID GID SIZE MTIME NAME NUL TARGET NUL"; KIND is one of
 *                                fdlcbps, MODE octal, MTIME in seconds, NAME below PATH, TARGET a symbolic link's
 *   remove  PATH ""|recursive
 *   rename  PATH NEW
 *   watch   PATH ""|recursive    a directory: "KIND PATH NUL" as it happens: R it is watched, C made or moved here,
 *                                W written, A attributes, M moved away, D removed, O some were lost, E it has gone
 */

/*
 * HP_B_HOLD freezes the file system of what HP_B_MOUNT has mounted, says "frozen" and a line break then, and thaws it
 * when stdin ends: its status is 0. It thaws it by itself when the times are over, with status 3, and when it is
 * killed.
 */

/*
 * A MOUNT of type "volume" binds what HP_B_MOUNT has mounted: SOURCE is the
 * volume's name, or a directory of it, VALUE a path below that, made when it
 * is not there, which cannot lead out of it. One of type "scratch" binds a
 * directory of the container's own scratch disk, of which VALUE is the path;
 * it is no part of the container's root file system. FLAGS: MS_RDONLY, and
 */
#define HP_MOUNT_COPY_UP (1ull << 32) /* an empty volume gets what the image has there */

#endif
