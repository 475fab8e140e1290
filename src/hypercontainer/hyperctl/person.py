# SPDX-License-Identifier: Apache-2.0
"""Logging in to hyperd by its identity provider, with a code that one enters in a browser (RFC 8628)."""

from __future__ import annotations

import contextlib
import os
import time

from ..client.api import Client
from ..client.contexts import DEFAULT, Contexts, path
from ..client.transport import Connection
from ..errors import Conflict, DeadlineExceeded, InvalidArgument, TooManyRequests, Unauthorized, Unavailable
from ..model.logins import DeviceLogin, DeviceQuestion, LoginAnswer
from .context import client

_SHORTEST = 0.2  # seconds between two questions
_ANSWER = 30.0  # seconds for an answer, which waits for the identity provider's


def log_in(file: str) -> None:
    """Until somebody has entered the code, and then keep the token.

    :raise InvalidArgument: there is no place for it. :raise DeadlineExceeded: nobody has entered it.
    """
    target = _target(file)
    for variable in ("HYPER_TOKEN", "HYPER_TOKEN_FILE"):  # an old one is of no use, and may be good no more
        os.environ.pop(variable, None)
    c = client()
    begun = c.call(DeviceLogin, "POST", "/login/device")
    asking = Client(c.path, lambda where: Connection(where, _ANSWER))
    print(f"Open {begun.verification_uri_complete or begun.verification_uri} and enter {begun.user_code}", flush=True)
    answer = _await(asking, begun)
    _keep(target, answer.secret)
    print(f"Logged in as {answer.user} until {answer.expires_at[:19]}Z; the token is in {target}")
    if not file and _context() == DEFAULT:
        print(f"Have it used: export HYPER_TOKEN_FILE={target}")


def _await(asking: Client, begun: DeviceLogin) -> LoginAnswer:
    """With the token. Who does not answer for once is asked again.

    :raise DeadlineExceeded: nobody has entered the code. :raise Unavailable: at the end nobody answers, either.
    """
    question = DeviceQuestion(handle=begun.handle)
    end, wait, trouble = time.monotonic() + begun.expires_in, begun.interval, None
    while time.monotonic() < end:
        time.sleep(max(_SHORTEST, wait))
        try:
            answer, trouble = asking.call(LoginAnswer, "POST", "/login/token", body=question), None
        except (Unavailable, Conflict, TooManyRequests) as error:  # Conflict: it is still busy with the question before
            wait, trouble = begun.interval, error
            continue
        if answer.secret:
            return answer
        wait = answer.wait
    raise trouble or DeadlineExceeded("nobody has entered the code in time", hint="log in again")


def log_out() -> None:
    """The token ends, and its file goes; one that is good no more goes as well.

    :raise InvalidArgument: one is not logged in. :raise Unavailable: nobody is there to end it; the file stays.
    """
    kept = os.environ.get("HYPER_TOKEN_FILE") or _target("")
    if not os.path.exists(kept):
        raise InvalidArgument("not logged in", hint="`hyperctl login --oidc` logs in")
    os.environ.pop("HYPER_TOKEN", None)  # it is another one, and would be sent in its place
    os.environ["HYPER_TOKEN_FILE"] = kept
    told = "Logged out"
    try:
        client().do("DELETE", "/login")
    except Unauthorized:
        told = "Logged out; the log-in had ended before"
    os.unlink(kept)
    print(told)


def _context() -> str:
    import click

    found = click.get_current_context().find_root().params.get("context")
    return str(found or Contexts().chosen)


def _target(file: str) -> str:
    """Where the token is kept: the context knows it, or is told."""
    name = _context()
    if file or name == DEFAULT:
        return os.path.abspath(file or os.path.join(os.path.dirname(path()), "token"))
    contexts = Contexts()
    context = contexts.get(name)
    if "tokenFile" not in context:
        context["tokenFile"] = os.path.join(os.path.dirname(path()), f"token-{name}")
        contexts.write()
    return str(context["tokenFile"])


def _keep(target: str, secret: str) -> None:
    """All of it or nothing; nobody else may read it."""
    os.makedirs(os.path.dirname(target), mode=0o700, exist_ok=True)
    new = f"{target}.{os.getpid()}"
    try:
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as kept:
            kept.write(secret)
        os.replace(new, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(new)
        raise
