"""Pages of web servers, read by ranges of bytes with the standard library alone.

They are read by the thread that asks: h5py asks while it holds its one lock, and the collector of garbage may want that
lock in any thread. A library with a thread of its own for its requests, like fsspec, would then wait for ever.
"""

from __future__ import annotations

import re
import time
from base64 import b64encode
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote, unquote
from urllib.request import Request, urlopen

from unoic_cli import __version__
from unoic_cli.errors import NoInputError
from unoic_cli.formats import storage


class NoRangesError(Exception):
    """A server that sends something else than the bytes that it was asked for."""

    code = 200


class Page:
    """An engine of `unoic_cli.formats.storage.RemoteFile`.

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
        scheme, user, address, query = storage.split_url(url)
        self._url = quote(f"{scheme}://{address}" + (f"?{query}" if query else ""), safe="%/:=&?~#+!$,;'@()*[]")
        self._headers = {"Accept-Encoding": "identity", "User-Agent": f"unoic/{__version__}"}
        self._login = "Basic " + b64encode(unquote(user).encode()).decode() if user else ""
        known, total = self._first(url)
        if total is None:
            storage.cannot_open(url, "a server that does not tell the size")
        self.size = total
        self.state: str = known.get("ETag") or known.get("Last-Modified") or ""
        if known.get("ETag", "").startswith('"'):
            self._headers["If-Match"] = known["ETag"]
        elif known.get("Last-Modified"):
            self._headers["If-Unmodified-Since"] = known["Last-Modified"]

    def _first(self, url: str) -> tuple[Any, int | None]:
        """Headers and size, from one byte: signed addresses often allow nothing but GET."""
        for attempt in range(storage.ATTEMPTS):
            try:
                with self._open("bytes=0-0") as answer:
                    return answer.headers, _size(answer.status, answer.headers)
            except HTTPError as error:
                error.close()
                if error.code == 416:  # nothing there to take a byte of
                    return error.headers, _size(206, error.headers)
                if error.code in (404, 410):
                    raise NoInputError(storage.shown(url), "no such object", "expected one that exists") from None
                storage.cannot_open(url, storage.reason_of(error))
            except (OSError, HTTPException, ValueError) as error:
                reason = storage.reason_of(error)
                if attempt + 1 == storage.ATTEMPTS or not storage.is_lost(reason):
                    storage.cannot_open(url, reason)
                time.sleep(0.2 * 2**attempt)
        raise AssertionError

    def _open(self, span: str) -> Any:
        request = Request(self._url, headers={**self._headers, "Range": span})
        if self._login:
            request.add_unredirected_header("Authorization", self._login)
        return urlopen(request, timeout=storage.READ_SECONDS)

    def read(self, offset: int, size: int) -> Any:
        """Bytes at an offset; fewer at the end of the page."""
        last = min(offset + size, self.size) - 1
        if last < offset:
            return b""
        with self._open(f"bytes={offset}-{last}") as answer:
            told = answer.headers.get("Content-Range", "").lower()
            parts = answer.status == 206 and told.startswith(f"bytes {offset}-")
            if not parts and (answer.status == 206 or (offset, last) != (0, self.size - 1)):
                raise NoRangesError
            return answer.read()

    def close(self) -> None:
        """Each request has a connection of its own."""


def _size(status: int, headers: Any) -> int | None:
    """Bytes of the whole page, if the answer tells."""
    if status == 206:
        found = re.search(r"/(\d+)\s*$", headers.get("Content-Range", ""))
        return int(found[1]) if found else None
    size = headers.get("Content-Length", "")
    return int(size) if size.isdigit() else None
