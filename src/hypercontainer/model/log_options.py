# SPDX-License-Identifier: Apache-2.0
"""`--log-driver` and `--log-opt`, as Docker names them: what each driver knows, and what is right."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

from ..errors import InvalidArgument, Unsupported
from .specs import LOG_DRIVERS, LogOptions
from .units import parse_count, parse_size

_FILE = ("max-size", "max-file")
_SENT = ("cache-disabled", "cache-max-size", "cache-max-file", "tag")
_COPY = (("max-size", "cache-max-size"), ("max-file", "cache-max-file"))  # a driver knows one of each
KNOWN = {
    "json-file": _FILE,
    "k8s-file": _FILE,
    "none": _FILE,
    "journald": _SENT,
    "syslog": (*_SENT, "syslog-address", "syslog-facility", "syslog-format"),
}
KNOWN[""] = tuple(sorted({name for names in KNOWN.values() for name in names}))  # the daemon's default, not known here
_SYSLOG_FORMATS = ("rfc3164", "rfc5424", "rfc5424micro")
_FACILITIES = (  # RFC 5424, 6.2.1, by their numbers; 12 to 15 have no names in Docker
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
_TAG = re.compile(r"\{\{\s*\.(\w+)\s*\}\}")
TAG_FIELDS = ("ID", "FullID", "Name", "ImageName", "ImageID", "ImageFullID", "DaemonName")
SYSLOG_PORT = 514


def read_log_options(driver: str, given: dict[str, str], *, path: str = "") -> LogOptions:
    """From names and values as a user writes them; without a driver they are for the daemon's, whichever that is.

    :raise InvalidArgument: naming the option and what would be right.
    """
    if driver and driver not in LOG_DRIVERS:
        raise InvalidArgument(f"unknown log driver {driver!r}", hint=f"known are {', '.join(LOG_DRIVERS)}")
    known = KNOWN[driver]
    if unknown := sorted(set(given) - set(known)):
        raise InvalidArgument(
            f"unknown log option {unknown[0]!r}" + (f" for {driver}" if driver else ""),
            hint=f"known are {', '.join(sorted(known))}",
        )
    size, count = (next((n for n in names if n in given), names[0]) for names in _COPY)
    options = LogOptions(
        driver=driver,  # type: ignore[arg-type]  # looked up above
        path=path,
        max_size=parse_size(given.get(size, "0")),
        max_files=parse_count(given.get(count, "0"), count),
        options={k: v for k, v in given.items() if not k.endswith(("max-size", "max-file"))},
    )
    check(options)
    return options


def with_defaults(options: LogOptions, default: LogOptions) -> LogOptions:
    """What a request leaves open is the daemon's default; as with Docker, its options are those of its driver only."""
    if options.driver not in ("", default.driver):
        return options
    return LogOptions(
        driver=default.driver, path=options.path, max_size=options.max_size or default.max_size,
        max_files=options.max_files or default.max_files, options={**default.options, **options.options},
    )  # fmt: skip


def check(options: LogOptions) -> None:
    """:raise InvalidArgument: naming the option and what would be right. :raise Unsupported: TLS."""
    if unknown := sorted(set(options.options) - set(KNOWN[options.driver])):
        raise InvalidArgument(f"unknown log option {unknown[0]!r} for {options.driver}")
    if options.driver == "syslog":
        syslog_address(options)
        facility(options)
        _one_of(options, "syslog-format", _SYSLOG_FORMATS)
    _one_of(options, "cache-disabled", ("true", "false"))
    for field in _TAG.findall(options.options.get("tag", "")):
        if field not in TAG_FIELDS:
            raise InvalidArgument(f"tag: there is no field {field!r}", hint=f"known are {', '.join(TAG_FIELDS)}")


def _one_of(options: LogOptions, name: str, values: tuple[str, ...]) -> None:
    if options.options.get(name, values[0]) not in values:
        raise InvalidArgument(f"invalid {name} {options.options[name]!r}", hint=f"known are {', '.join(values)}")


def keeps_no_copy(options: LogOptions) -> bool:
    """Whether there is nothing on this host that `logs` could read."""
    return options.driver == "none" or options.options.get("cache-disabled") == "true"


def write_tag(text: str, fields: dict[str, str]) -> str:
    """Docker's template of a tag, filled in."""
    return _TAG.sub(lambda found: fields.get(found[1], ""), text or "{{.ID}}")


def facility(options: LogOptions) -> int:
    """:raise InvalidArgument: neither a name nor a number from 0 to 23."""
    text = options.options.get("syslog-facility", "daemon")
    if text in _FACILITIES and text:
        return _FACILITIES.index(text)
    if re.fullmatch("[0-9]{1,2}", text) and int(text) < len(_FACILITIES):
        return int(text)
    raise InvalidArgument(f"invalid syslog-facility {text!r}", hint="give a name, as local0, or a number from 0 to 23")


def syslog_address(options: LogOptions) -> tuple[str, str, int]:
    """Transport (udp, tcp, unix), host or path, port; all empty for this host's own.

    :raise InvalidArgument: it is not understood. :raise Unsupported: TLS.
    """
    text = options.options.get("syslog-address", "")
    if not text:
        return "", "", 0
    try:
        found = urlsplit(text)
        port = found.port or SYSLOG_PORT
    except ValueError:
        found, port = urlsplit(""), 0
    if found.scheme == "tcp+tls":
        raise Unsupported("syslog over TLS is not there", hint="use tcp:// to a relay on this host")
    if found.scheme in ("unix", "unixgram") and found.path.startswith("/") and not found.netloc:
        return "unix", found.path, 0
    if found.scheme in ("udp", "tcp") and found.hostname and found.path in ("", "/"):
        return found.scheme, found.hostname, port
    raise InvalidArgument(
        f"invalid syslog-address {text!r}", hint="write udp://HOST:PORT, tcp://HOST:PORT or unix:///PATH"
    )
