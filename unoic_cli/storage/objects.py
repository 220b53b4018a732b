"""Remote objects, read by ranges of bytes.

S3 and Google Cloud Storage go through pyarrow's own file systems, http(s) through `web`; Azure without a key, and
what a pyarrow was built without, through fsspec. An object is opened once to learn its size and state, and then read
at offsets.
"""

from __future__ import annotations

import base64
import contextlib
import fnmatch
import functools
import gc
import importlib
import io
import logging
import os
import re
import threading
import time
from collections import OrderedDict
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import parse_qsl, unquote

from unoic_cli.errors import NoInputError, StorageError, UsageError
from unoic_cli.storage import reasons, witness
from unoic_cli.urls import AZURE, shown, split_url

if TYPE_CHECKING:
    from numpy.typing import NDArray

SPAN_BYTES = 8 << 20
"""What one worker reads at once of a remote object, at least: requests cost time."""
IMAGE_BYTES = 64 << 20
"""Class-major images up to this are read whole: a part of one is a request for each class."""

_EXTRA = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "abfs": "adlfs", "abfss": "adlfs", "az": "adlfs"}
_AZURES = ("abfs", "abfss", "az")
_BLOCK = 1 << 20
_BLOCKS = 32


# engines: what can be asked of an object


_STATES = ("ETag", "etag", "md5Hash", "LastModified", "last_modified", "mtime", "updated")
"""What the state of an object is called, from system to system."""


class _Engine(Protocol):
    size: int
    state: str
    patient: bool
    """Whether it tries again by itself where a server does not answer."""

    def read(self, offset: int, size: int) -> Any:
        """Bytes at an offset; fewer at the end of the object."""
        ...

    def close(self) -> None:
        """Let go of connections."""
        ...


class _ArrowEngine:
    """An object of one of pyarrow's file systems."""

    patient = True

    def __init__(self, url: str) -> None:
        import pyarrow as pa

        system, path = _arrow_system(url)
        try:
            self._file = system.open_input_file(path)
            self.size = self._file.size()
            known = self._file.metadata() or {}
            etag = next((known[key] for key in _STATES if known.get(key)), b"")
            self.state = etag.decode(errors="replace") or str(system.get_file_info(path).mtime_ns)
        except FileNotFoundError:
            raise NoInputError(shown(url), _missing(system, path), "expected an object that exists") from None
        except (OSError, pa.ArrowException) as error:
            reasons.cannot_open(url, reasons.reason_of(error))

    def read(self, offset: int, size: int) -> Any:
        return self._file.read_at(size, offset)

    def close(self) -> None:
        self._file.close()


class _SpecEngine:
    """An object of one of fsspec's file systems."""

    patient = True

    def __init__(self, url: str) -> None:
        self._system, self._path = _spec_system(url)
        try:
            info = self._system.info(self._path)
        except FileNotFoundError:
            raise NoInputError(shown(url), "no such object", "expected an object that exists") from None
        except Exception as error:
            reasons.cannot_open(url, reasons.reason_of(error))
        if info.get("size") is None or info.get("type") == "directory":
            reasons.cannot_open(url, "a folder")
        self.size = int(info["size"])
        self.state = str(next((info[key] for key in _STATES if info.get(key)), ""))

    def read(self, offset: int, size: int) -> Any:
        collecting = gc.isenabled()
        gc.disable()  # see `web`: garbage of h5py must not be collected in fsspec's thread meanwhile
        try:
            return self._system.cat_file(self._path, start=offset, end=min(offset + size, self.size))
        finally:
            if collecting:
                gc.enable()

    def close(self) -> None:
        """Connections are fsspec's own, and shared."""


def _missing(system: Any, path: str) -> str:
    """Whether the object is missing, or its bucket."""
    bucket, inside, _ = path.partition("/")
    with contextlib.suppress(Exception):
        if inside and int(system.get_file_info(bucket).type) == 0:
            return f"no such bucket {bucket}"
    return "no such object"


def _arrow_system(url: str) -> tuple[Any, str]:
    """One of pyarrow's file systems, and the path in it; KeyError where it has none."""
    import pyarrow as pa

    scheme, user, address, query = split_url(url)
    bucket, _, path = address.partition("/")
    if not bucket or not path:
        raise NoInputError(shown(url), "no object named", f"expected {scheme}://BUCKET/NAME")
    try:
        if scheme == "s3":
            return _s3_system(bucket, user, query), address
        if scheme in ("gs", "gcs"):
            return _google_system(bucket, query), address.removeprefix("anonymous@")
        return _azure_system(user, bucket, query), _inside_azure(address)
    except (ImportError, NotImplementedError, AttributeError):
        raise KeyError(scheme) from None
    except (OSError, ValueError, pa.ArrowException) as error:
        if isinstance(error, pa.ArrowNotImplementedError) or "without" in str(error):
            raise KeyError(scheme) from None
        reasons.cannot_open(url, reasons.reason_of(error))


def _inside_azure(address: str) -> str:
    """Path of an object: container and name."""
    host, _, path = address.partition("/")
    named = AZURE.fullmatch(host)
    if named and named[1]:
        return f"{named[1]}/{path}"
    return path if _is_host(host) else address


@functools.lru_cache(maxsize=64)
def _s3_system(bucket: str, user: str, query: str) -> Any:
    """S3 as the environment describes it: credentials, AWS_ENDPOINT_URL[_S3], AWS_REGION or AWS_DEFAULT_REGION."""
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem, resolve_s3_region

    options = dict(parse_qsl(query))
    made: dict[str, Any] = {}
    endpoint = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL") or ""
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    if endpoint:
        before, separator, after = endpoint.partition("://")
        made["endpoint_override"] = (after if separator else before).rstrip("/")
        made["scheme"] = options.get("scheme") or (before if separator else "https")
    elif not region:
        with contextlib.suppress(OSError):
            region = resolve_s3_region(bucket)
    if region:
        made["region"] = region
    if user:
        key, _, secret = user.partition(":")
        made |= {"access_key": unquote(key), "secret_key": unquote(secret)}
    if _says_anonymous(options):
        made["anonymous"] = True
    made |= {"request_timeout": reasons.READ_SECONDS, "connect_timeout": reasons.CONNECT_SECONDS}
    strategy = AwsStandardS3RetryStrategy(max_attempts=reasons.ATTEMPTS)
    return S3FileSystem(**made, retry_strategy=strategy)


@functools.lru_cache(maxsize=64)
def _google_system(host: str, query: str) -> Any:
    """Google Cloud Storage as the environment describes it: credentials, or an emulator, which asks for none."""
    from pyarrow.fs import GcsFileSystem

    options = dict(parse_qsl(query))
    made = {key: options[key] for key in ("scheme", "endpoint_override") if key in options}
    emulator = os.environ.get("CLOUD_STORAGE_EMULATOR_ENDPOINT") or os.environ.get("STORAGE_EMULATOR_HOST")
    if emulator and "endpoint_override" not in made:
        before, separator, after = emulator.partition("://")
        made = {"scheme": before if separator else "http", "endpoint_override": (after or before).rstrip("/")}
    anonymous = host.startswith("anonymous@") or bool(emulator) or _says_anonymous(options)
    limit = timedelta(seconds=float(options.get("retry_limit_seconds", reasons.CONNECT_SECONDS * reasons.ATTEMPTS)))
    return GcsFileSystem(anonymous=anonymous, retry_time_limit=limit, **made)


@functools.lru_cache(maxsize=64)
def _azure_system(user: str, host: str, query: str) -> Any:
    """Azure with a key, or for everyone; KeyError else.

    Without either, pyarrow asks Azure's chain of credentials, and the process ends where none of them has any.
    """
    from pyarrow.fs import AzureFileSystem, FileSystem

    options = dict(parse_qsl(query))
    known, key_known = (os.environ.get(f"AZURE_STORAGE_ACCOUNT_{part}", "") for part in ("NAME", "KEY"))
    named = AZURE.fullmatch(host)
    account, _, key = user.partition(":")
    account = named[2] if named else account or known
    key = unquote(key) or (key_known if account == known else "")
    plain = options.get("enable_tls", "").lower() in ("false", "0")
    made = {}
    if _is_host(host) and not named:
        made = {f"{part}_storage_authority": host for part in ("blob", "dfs")}
        made |= {f"{part}_storage_scheme": "http" if plain else "https" for part in ("blob", "dfs")}
    if account and key:
        base64.b64decode(key, validate=True)  # pyarrow ends the process where this fails
        return AzureFileSystem(account_name=account, account_key=key, **made)
    if account and _says_anonymous(options):
        place = f"abfs://{account}@{host}" if made else f"abfs://{account}@any"
        tls = "&enable_tls=false" if plain else ""
        return FileSystem.from_uri(f"{place}/any?credential_kind=anonymous{tls}")[0]
    raise KeyError("abfs")


def _says_anonymous(options: dict[str, str]) -> bool:
    return options.get("anonymous", "").lower() in ("true", "1") or options.get("credential_kind") == "anonymous"


def _is_host(name: str) -> bool:
    """Whether a name is a server's; containers have neither dots nor ports."""
    return "." in name or ":" in name


@functools.cache
def _silence(package: str) -> None:
    """What a package logs goes to the logs of whoever keeps any, not to stderr."""
    logging.getLogger(package).addHandler(logging.NullHandler())


def _spec_system(url: str) -> tuple[Any, str]:
    scheme = split_url(url)[0]
    try:
        import fsspec

        importlib.import_module(_EXTRA[scheme])
        _silence(_EXTRA[scheme])
        place, _, address, _ = split_url(url)
        limits = (
            {"connection_timeout": reasons.CONNECT_SECONDS, "read_timeout": reasons.READ_SECONDS}
            if place in _AZURES
            else {}
        )
        known: tuple[Any, str] = fsspec.core.url_to_fs(f"{'gs' if place == 'gcs' else place}://{address}", **limits)
        return known
    except ValueError as error:
        azure = _EXTRA[scheme] == "adlfs"
        reasons.cannot_open(
            url, "no account: AZURE_STORAGE_ACCOUNT_NAME names one" if azure else reasons.reason_of(error)
        )
    except OSError as error:
        reasons.cannot_open(url, reasons.reason_of(error))
    except ImportError:
        found = f"{scheme}:// needs packages that are not installed"
        raise NoInputError(shown(url), found, "expected them: pip install 'unoic[cloud]'") from None


# ------------------------------------------------------------------------------------------------
# one object


class RemoteFile:
    """An object that is read at offsets, from any thread.

    Parameters
    ----------
    url : str

    Attributes
    ----------
    name : str
        As messages show it.
    size : int
    stamp : tuple
        Tells one state of the object from another.

    Raises
    ------
    NoInputError
        The object is missing, or cannot be opened.
    """

    def __init__(self, url: str) -> None:
        self.name = shown(url)
        self._url = url
        self._lent: list[_LibraryFile] = []
        self._engine = self._make()
        self.size = self._engine.size
        self.stamp = ("remote", self.size, self._engine.state)

    def _make(self) -> _Engine:
        if self._url.startswith("http"):
            from unoic_cli.storage import web

            return web.Page(self._url)
        with contextlib.suppress(KeyError):
            return _ArrowEngine(self._url)
        return _SpecEngine(self._url)

    def read(self, offset: int, size: int, where: str | None = None) -> Any:
        """Exactly `size` bytes at an offset.

        Raises
        ------
        StorageError
            The connection broke, or the object changed or ends too soon.
        """
        where, began = where or self.name, time.monotonic()
        for attempt in range(reasons.ATTEMPTS):
            try:
                data = self._engine.read(offset, size)
            except Exception as error:
                reason = reasons.reason_of(error)
                slow = isinstance(error, reasons.SlowError) or time.monotonic() - began > reasons.REQUEST_SECONDS
                lost = reasons.is_lost(reason) or slow
                known = reasons.status_of(error) == 200
                if not lost and not known and self._changed():
                    raise witness.changed(where, "object") from None
                if known:
                    raise StorageError(where, "a server that sends no parts of files", _SAME_PARTS) from None
                hopeless = slow or (reasons.status_of(error) or 500) < 500 or (lost and self._engine.patient)
                if hopeless or attempt + 1 == reasons.ATTEMPTS:
                    raise StorageError(
                        where, f"reading failed ({reason})", "expected a connection that lasts"
                    ) from error
                time.sleep(0.2 * 2**attempt)
                continue
            if len(data) == size:
                return data
            if len(data) > size:
                raise StorageError(where, "a server that sends more than was asked for", _SAME_PARTS)
        if self._changed():
            raise witness.changed(where, "object")
        raise StorageError(where, "the object ends too soon", f"expected {size:,} bytes at {offset:,}")

    def _changed(self) -> bool:
        """Whether the object is another now; not when nobody can tell."""
        try:
            now = self._make()
        except NoInputError as error:
            return "no such" in error.found
        try:
            return ("remote", now.size, now.state) != self.stamp
        finally:
            now.close()

    def read_into(self, where: str, array: NDArray[Any], offset: int) -> None:
        """Fill a C-contiguous array."""
        view = array.reshape(-1).view("u1").data
        view[:] = self.read(offset, len(view), where)

    def as_file(self) -> io.RawIOBase:
        """The object as a file for libraries; short reads are kept in blocks."""
        self._lent.append(_LibraryFile(self))
        return self._lent[-1]

    def close(self) -> None:
        """Let go of connections, when the reads in flight have ended: threads that are at one cannot outlive Python."""
        for file in self._lent:
            file.end()
        self._engine.close()


_SAME_PARTS = "expected one that answers to Range"


class _LibraryFile(io.RawIOBase):
    """What libraries take for a file: small reads go through blocks that are kept, large ones do not."""

    def __init__(self, remote: RemoteFile) -> None:
        super().__init__()
        self._remote = remote
        self._at = 0
        self._blocks: OrderedDict[int, Any] = OrderedDict()
        self._reading, self._ended = threading.Lock(), False

    def end(self) -> None:
        """Wait for the read in flight, and begin no other: whoever asks for one gets an error."""
        self._ended = True
        with self._reading:
            self._blocks.clear()

    def readable(self) -> bool:
        """Yes."""
        return True

    def seekable(self) -> bool:
        """Yes."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move."""
        self._at = offset + (0, self._at, self._remote.size)[whence]
        return self._at

    def tell(self) -> int:
        """Where we are."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer as far as the object goes."""
        with self._reading:
            if self._ended:
                raise ValueError("a file that is closed")
            return self._fill(memoryview(buffer).cast("B"))

    def _fill(self, view: memoryview) -> int:
        view = view[: max(0, min(len(view), self._remote.size - self._at))]
        done = len(view)
        if done >= _BLOCK:
            view[:] = self._remote.read(self._at, done)
            self._at += done
            return done
        while view:
            block, offset = divmod(self._at, _BLOCK)
            part = memoryview(self._block(block))[offset : offset + len(view)]
            view[: len(part)] = part
            view, self._at = view[len(part) :], self._at + len(part)
        return done

    def _block(self, index: int) -> Any:
        found = self._blocks.pop(index, None)
        if found is None:
            start = index * _BLOCK
            found = self._remote.read(start, min(_BLOCK, self._remote.size - start))
        self._blocks[index] = found
        while len(self._blocks) > _BLOCKS:
            self._blocks.popitem(last=False)
        return found


def listing(pattern: str) -> list[str]:
    """Names of remote objects that a pattern matches: ``*`` and ``?`` within a folder, ``**`` across folders.

    Raises
    ------
    NoInputError
        The place cannot be listed.
    """
    import pyarrow as pa
    from pyarrow.fs import FileSelector, FileType

    scheme, _, address, _ = split_url(pattern)
    fixed = re.split(r"[*?\[]", address, maxsplit=1)[0].rpartition("/")[0]
    if scheme in ("http", "https"):
        raise UsageError(shown(pattern), "a pattern", "expected names: web servers have no listing of their files")
    if "/" not in address or not fixed:
        raise NoInputError(shown(pattern), "a pattern in place of a bucket", f"expected {scheme}://BUCKET/PATTERN")
    if scheme not in ("s3", "gs", "gcs"):
        raise UsageError(shown(pattern), f"a pattern of {scheme}://", "expected names, or an @LIST of them")
    try:
        system, path = _arrow_system(pattern)
    except KeyError:
        found = "a pattern that this pyarrow cannot list"
        raise NoInputError(shown(pattern), found, "expected names, or an @LIST of them") from None
    base = path[: len(path) - (len(address) - len(fixed))]
    try:
        if system.get_file_info(path).type == FileType.File:
            return [pattern]  # that very name
        deep = "/" in address[len(fixed) + 1 :]
        infos = system.get_file_info(FileSelector(base, recursive=deep, allow_not_found=True))
    except (OSError, pa.ArrowException) as error:
        raise NoInputError(
            shown(pattern), f"cannot be listed ({reasons.reason_of(error)})", "expected a bucket"
        ) from None
    wanted = path.split("/")
    kept = [info.path for info in infos if info.type == FileType.File and _matches(info.path.split("/"), wanted)]
    at = pattern.index(address)
    prefix, suffix = pattern[:at], pattern[at + len(address) :]
    lead = address[: len(fixed)]
    return [f"{prefix}{lead}{name[len(base) :]}{suffix}" for name in kept]


def _matches(parts: list[str], pattern: list[str]) -> bool:
    """Whether a path matches a pattern, folder by folder."""
    if not pattern:
        return not parts
    if pattern[0] == "**":
        rest = pattern[1:] or ["*"]
        return any(_matches(parts[i:], rest) for i in range(len(parts)))
    return bool(parts) and fnmatch.fnmatchcase(parts[0], pattern[0]) and _matches(parts[1:], pattern[1:])
