# SPDX-License-Identifier: Apache-2.0
"""What `make calls` makes of a trace."""

from __future__ import annotations

from collections import Counter

from hypercontainer.jail.seccomp import Rule
from tests.traced import calls_of, difference, filtered_lines

# Of `strace -f -qq -s 64 -p PID`, as strace 6.1 writes it.
TRACE = """\
4711 ppoll([{fd=4, events=POLLIN}], 1, {tv_sec=0, tv_nsec=5000}, NULL, 8 <unfinished ...>
4713 futex(0x55d0, FUTEX_WAIT_PRIVATE, 2, NULL <unfinished ...>
4711 <... ppoll resumed>)               = 0 (Timeout)
4711 --- SIGALRM {si_signo=SIGALRM, si_code=SI_TIMER} ---
4711 rt_sigreturn({mask=[]})            = -1 EINTR (Interrupted system call)
4713 <... futex resumed>)               = 0
4713 pwritev(17, [{iov_base=""..., iov_len=4096}], 1, 4096) = 4096
4711 ppoll([{fd=4, events=POLLIN}], 1, NULL, NULL, 8) = 1 ([{fd=4, revents=POLLIN}])
4711 openat(AT_FDCWD, "/dev/urandom", O_RDONLY) = 3
4713 openat(AT_FDCWD, "/sys/devices/system/cpu/online", O_RDONLY|O_CLOEXEC <unfinished ...>
4713 <... openat resumed>)              = 17
4711 openat(AT_FDCWD, "/etc/passwd", O_RDONLY) = 4
4713 +++ exited with 0 +++
"""


def test_calls_of_a_trace() -> None:
    assert calls_of(TRACE) == Counter(ppoll=2, futex=1, rt_sigreturn=1, pwritev=1, openat=1)


def test_the_difference_to_a_list() -> None:
    rules = (Rule("ppoll"), Rule("futex"), Rule("pwritev"), Rule("fsync"), Rule("rt_sigreturn", missing=True))
    found = difference(calls_of(TRACE), rules)
    assert (found.forbidden, found.unseen) == (("openat",), ("fsync",))
    assert found.text() == "+ openat\n- fsync"
    assert difference(Counter(ppoll=1), (Rule("ppoll"),)).text() == "the same"


FILTERED = """\
11 openat(AT_FDCWD, "/etc/x", O_RDONLY) = 3
11 prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, {len=300, filter=0x7f}) = 0
12 socket(AF_UNIX, SOCK_STREAM, 0) = 4
11 clone(child_stack=0x7f, flags=CLONE_VM|CLONE_THREAD <unfinished ...>
11 <... clone resumed>, parent_tid=[13]) = 13
13 futex(0x55d0, FUTEX_WAIT_PRIVATE, 2, NULL) = 0
11 clone3({flags=CLONE_VM}, 88)           = -1 ENOSYS (Function not implemented)
13 +++ exited with 0 +++
13 connect(3, {sa_family=AF_UNIX}, 3) = 0
12 prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 0) = -1 EFAULT (Bad address)
12 bind(3, {sa_family=AF_UNIX}, 3) = 0
"""


def test_what_is_done_under_a_filter() -> None:
    """By who put it on, and by threads that came then; a number may be another's later."""
    assert set(calls_of("\n".join(filtered_lines(FILTERED)))) == {"clone", "futex", "clone3"}
