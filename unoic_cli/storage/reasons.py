"""Why a server did not answer, in a few words of ours, and how long it is waited for."""

from __future__ import annotations

import binascii
import re
import socket
from typing import NoReturn

from unoic_cli.errors import NoInputError
from unoic_cli.urls import shown

CONNECT_SECONDS = 5
"""To reach a server, for each of `ATTEMPTS`."""
READ_SECONDS = 15
"""Without a byte, before an attempt to read is given up."""
REQUEST_SECONDS = 60
"""For the whole of a request to a web server, however steadily its bytes trickle."""
ATTEMPTS = 3

_UNREACHABLE, _LATE = "the server cannot be reached", "no answer in time"
_REASONS = {
    "ACCESS_DENIED": "access denied",
    "PERMISSION_DENIED": "access denied",
    "UNAUTHENTICATED": "no valid credentials",
    "INVALID_ACCESS_KEY_ID": "no valid credentials",
    "SIGNATURE_DOES_NOT_MATCH": "no valid credentials",
    "NETWORK_CONNECTION": _UNREACHABLE,
    "UNAVAILABLE": _UNREACHABLE,
    "REQUEST_TIMEOUT": _LATE,
    "DEADLINE_EXCEEDED": _LATE,
    "NO_SUCH_BUCKET": "no such bucket",
    "301": "another region than that of the bucket",
    "401": "no valid credentials",
    "403": "access denied",
    "404": "no such object",
    "412": "it changed while it was in use",
    "416": "it ends too soon",
}


def is_lost(reason: str) -> bool:
    """Whether there was no answer at all."""
    return reason in (_UNREACHABLE, _LATE)


def status_of(error: BaseException) -> int | None:
    """The status that a server answered with."""
    found = getattr(error, "code", getattr(error, "status", None))
    return found if isinstance(found, int) else None


class SlowError(TimeoutError):
    """A server whose answer is not complete in time."""


def reason_of(error: BaseException) -> str:
    """Why, in a few words of ours: what libraries say may hold addresses with credentials."""
    inner = getattr(error, "reason", None)
    if isinstance(inner, BaseException):  # of urllib
        error = inner
    if isinstance(error, SlowError):
        return f"an answer that takes more than {REQUEST_SECONDS} s"
    if isinstance(error, socket.gaierror):
        return _UNREACHABLE
    if "OAuth2 access token" in str(error) or isinstance(error, binascii.Error):  # the server was not even asked
        return "no valid credentials"
    code = status_of(error)
    status = "" if code is None else str(code)
    if not status:
        text = str(error)
        found = re.search(r"AWS Error ([A-Z_]+)|Status\(([A-Z_]+)|HTTP status (\d+)|Azure.*?\b([345]\d\d)\b", text)
        network = re.search(r"curlCode: (\d+)", text)
        status = next((part for part in found.groups() if part), "") if found else ""
        if status in ("UNKNOWN", "INTERNAL_FAILURE") and (http := re.search(r"HTTP status (\d+)", text)):
            status = http[1]
        if network and network[1] == "28":
            status = "REQUEST_TIMEOUT"
    known = _REASONS.get(status)
    if known:
        return known
    if status:
        return f"HTTP status {status}" if status.isdigit() else status.lower().replace("_", " ")
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return _LATE
    unreachable = "Fail to get a new connection" in str(error) or "resolve" in str(error)
    if isinstance(error, ConnectionError) or re.search("Connect|ServiceRe", type(error).__name__) or unreachable:
        return _UNREACHABLE
    if isinstance(error, PermissionError) or re.search("Credential|Authentic", type(error).__name__):
        return "access denied, or no credentials"
    return "storage that does not work" if type(error) is OSError else type(error).__name__


def cannot_open(url: str, reason: str) -> NoReturn:
    """Refuse an object, with the reason in words of ours."""
    raise NoInputError(shown(url), f"cannot be opened ({reason})", "expected an object that can be read") from None
