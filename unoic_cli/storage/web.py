"""Pages of web servers, read by ranges of bytes with the standard library alone.

They are read by the thread that asks: h5py asks while it holds its one lock, and the collector of garbage may want that
lock in any thread. A library with a thread of its own for its requests, like fsspec, would then wait for ever.
"""

from __future__ import annotations

import io
import re
import time
from base64 import b64encode
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection, IncompleteRead
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote
from urllib.request import HTTPHandler, HTTPSHandler, Request, build_opener

from unoic_cli.errors import NoInputError
from unoic_cli.storage import reasons
from unoic_cli.urls import shown, split_url
from unoic_cli.version import __version__

_PIECE = 8 << 20
"""Bytes of one request, at most."""


class NoRangesError(Exception):
    """A server that sends something else than the bytes that it was asked for."""

    code = 200


class _Timely(io.RawIOBase):
    """What a server sends, as long as it comes in time: not each byte, but all of them."""

    def __init__(self, raw: Any, connection: Any, deadline: float) -> None:
        super().__init__()
        self._raw, self._connection, self._deadline = raw, connection, deadline

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int | None:
        """Wait for some bytes, at most until the deadline."""
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise reasons.SlowError
        self._connection.settimeout(min(reasons.READ_SECONDS, left))
        try:
            count: int | None = self._raw.readinto(buffer)
        except TimeoutError:
            if time.monotonic() < self._deadline:
                raise
            raise reasons.SlowError from None
        return count

    def close(self) -> None:
        """Let go of the connection."""
        self._raw.close()
        super().close()


def _timely(kind: Any, deadline: float) -> Any:
    """Connections of a kind whose answers must be complete at a time."""

    class Answer(HTTPResponse):
        def __init__(self, sock: Any, *args: Any, **more: Any) -> None:
            super().__init__(sock, *args, **more)
            self.fp: Any = io.BufferedReader(_Timely(self.fp.detach(), sock, deadline), 1 << 16)

    class Connection(kind):  # type: ignore[misc]  # of the one kind or the other
        response_class = Answer

    return Connection


def _ask(request: Request, deadline: float) -> Any:
    """Send a request; its answer must be complete at the deadline, redirections included."""

    class Plain(HTTPHandler):
        def http_open(self, req: Request) -> HTTPResponse:
            return self.do_open(_timely(HTTPConnection, deadline), req)

    class Secure(HTTPSHandler):
        def do_open(self, http_class: Any, req: Request, **more: Any) -> HTTPResponse:
            return super().do_open(_timely(HTTPSConnection, deadline), req, **more)

    return build_opener(Plain, Secure).open(request, timeout=reasons.READ_SECONDS)


class Page:
    """An engine of `unoic_cli.storage.RemoteFile`.

    Parameters
    ----------
    url : str

    Raises
    ------
    NoInputError
        The page is missing, or cannot be opened.
    """

    patient = False

    def __init__(self, url: str) -> None:
        scheme, user, address, query = split_url(url)
        self._url = quote(f"{scheme}://{address}" + (f"?{query}" if query else ""), safe="%/:=&?~#+!$,;'@()*[]")
        self._headers = {"Accept-Encoding": "identity", "User-Agent": f"unoic/{__version__}"}
        self._login = "Basic " + b64encode(unquote(user).encode()).decode() if user else ""
        known, total = self._first(url)
        if total is None:
            reasons.cannot_open(url, "a server that does not tell the size")
        self.size = total
        self.state: str = known.get("ETag") or known.get("Last-Modified") or ""
        if known.get("ETag", "").startswith('"'):
            self._headers["If-Match"] = known["ETag"]
        elif known.get("Last-Modified"):
            self._headers["If-Unmodified-Since"] = known["Last-Modified"]

    def _first(self, url: str) -> tuple[Any, int | None]:
        """Headers and size, from one byte: signed addresses often allow nothing but GET."""
        deadline = time.monotonic() + reasons.REQUEST_SECONDS
        for attempt in range(reasons.ATTEMPTS):
            try:
                with self._open("bytes=0-0", deadline) as answer:
                    return answer.headers, _size(answer.status, answer.headers)
            except HTTPError as error:
                error.close()
                if error.code == 416:  # nothing there to take a byte of
                    return error.headers, _size(206, error.headers)
                if error.code in (404, 410):
                    raise NoInputError(shown(url), "no such object", "expected one that exists") from None
                reasons.cannot_open(url, reasons.reason_of(error))
            except (OSError, HTTPException, ValueError) as error:
                reason = reasons.reason_of(error)
                if attempt + 1 == reasons.ATTEMPTS or not reasons.is_lost(reason):
                    reasons.cannot_open(url, reason)
                time.sleep(0.2 * 2**attempt)
        raise AssertionError

    def _open(self, span: str, deadline: float) -> Any:
        request = Request(self._url, headers={**self._headers, "Range": span})
        if self._login:
            request.add_unredirected_header("Authorization", self._login)
        return _ask(request, deadline)

    def read(self, offset: int, size: int) -> Any:
        """Bytes at an offset; fewer at the end of the page."""
        data, stop = bytearray(), min(offset + size, self.size)
        while offset + len(data) < stop:  # a request is so small that slow lines serve it in time, too
            first = offset + len(data)
            last = min(stop, first + _PIECE)
            data += self._piece(first, last)
            if offset + len(data) != last:
                break
        return data

    def _piece(self, first: int, stop: int) -> bytes:
        deadline = time.monotonic() + reasons.REQUEST_SECONDS
        with self._open(f"bytes={first}-{stop - 1}", deadline) as answer:
            told = answer.headers.get("Content-Range", "").lower()
            parts = answer.status == 206 and told.startswith(f"bytes {first}-")
            if not parts and (answer.status == 206 or (first, stop) != (0, self.size)):
                raise NoRangesError
            body: bytes = answer.read(stop - first + 1)  # whatever it says: not a body without end
            if answer.length and len(body) < stop - first:  # the connection broke: not what the server meant to send
                raise IncompleteRead(b"", answer.length)
            return body

    def close(self) -> None:
        """Each request has a connection of its own."""


def _size(status: int, headers: Any) -> int | None:
    """Bytes of the whole page, if the answer tells."""
    if status == 206:
        found = re.search(r"/(\d+)\s*$", headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    size = headers.get("Content-Length", "")
    return int(size) if size.isdigit() else None
