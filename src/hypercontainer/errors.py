# SPDX-License-Identifier: Apache-2.0
"""Every error that HyperContainer raises on purpose.

    HyperError
    ├── InvalidArgument      the caller's input is wrong
    ├── NotFound             no such container, image, pod, exec
    ├── Conflict             exists already, or is in use
    ├── InvalidState         not possible in the present state
    ├── PermissionDenied     the caller or the daemon may not
    ├── Unauthorized         a registry, or hyperd, wants other credentials
    ├── Unsupported          this build, driver or kernel cannot
    ├── Unavailable          the daemon, a registry or a guest cannot be reached
    ├── DeadlineExceeded     it took too long
    ├── NoSpace              a disk is full
    ├── QuotaExceeded        it is more than who asks may have
    ├── TooManyRequests      who asks has asked too often
    ├── StartFailed          the program in the container could not be started
    ├── GuestError           the guest answered with an error
    └── InternalError        a defect of ours

`code` is stable and travels over REST; `hint` says what to do about it.
"""

from __future__ import annotations

TYPE_CHECKING = False  # the one of `typing`, which takes a command line 10 ms to import
if TYPE_CHECKING:
    from typing import ClassVar


class HyperError(Exception):
    """Base of all. `message` is one sentence without a full stop."""

    code: ClassVar[str] = "internal"

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


class InvalidArgument(HyperError):
    """The caller's input is wrong."""

    code = "invalid_argument"


class NotFound(HyperError):
    """The named object does not exist."""

    code = "not_found"


class Conflict(HyperError):
    """The name is taken, or the object is in use."""

    code = "conflict"


class InvalidState(HyperError):
    """The object's present state does not allow it."""

    code = "invalid_state"


class PermissionDenied(HyperError):
    """The caller or the daemon lacks a right."""

    code = "permission_denied"


class Unauthorized(HyperError):
    """A registry refused the credentials, or hyperd those of the caller."""

    code = "unauthorized"


class Unsupported(HyperError):
    """This build, driver or kernel cannot do it."""

    code = "unsupported"


class Unavailable(HyperError):
    """A daemon, a registry or a guest cannot be reached."""

    code = "unavailable"


class DeadlineExceeded(HyperError):
    """It took longer than it may."""

    code = "deadline_exceeded"


class NoSpace(HyperError):
    """A disk is full."""

    code = "no_space"


class QuotaExceeded(HyperError):
    """Who asks, or whose it is, may not have so much."""

    code = "quota_exceeded"


class TooManyRequests(HyperError):
    """Who asks has asked too often; `retry_after` is in how many seconds they may again."""

    code = "too_many_requests"

    def __init__(self, message: str, *, retry_after: int = 1, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class StartFailed(HyperError):
    """The program could not be started; `exit_status` is 126 or 127, as shells say."""

    code = "start_failed"

    def __init__(self, message: str, *, exit_status: int = 126, hint: str | None = None) -> None:
        super().__init__(message, hint=hint)
        self.exit_status = exit_status


class GuestError(HyperError):
    """The guest answered with an error; `errno` is Linux's or 0."""

    code = "guest"

    def __init__(self, message: str, *, guest_code: int = 0, errno: int = 0) -> None:
        super().__init__(message)
        self.guest_code = guest_code
        self.errno = errno


class InternalError(HyperError):
    """A defect of HyperContainer's own."""


def by_code(code: str) -> type[HyperError]:
    """The class whose code this is, for clients; HyperError when unknown."""
    return {c.code: c for c in HyperError.__subclasses__()}.get(code, HyperError)
