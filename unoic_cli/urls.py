"""Names of remote objects: their parts, and how they are shown, without what they may say of credentials."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "az", "http", "https")

AZURE = re.compile(r"(?:([^@]+)@)?([^.@]+)\.(?:dfs|blob)\.core\.windows\.net")
_URL = re.compile(rf"({'|'.join(SCHEMES)})://")
_ANY_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_NAMED = re.compile(rf"([A-Za-z_][A-Za-z0-9_.-]*=)?@?{_ANY_URL.pattern}")
_QUERY = re.compile(r"\?[a-z_]+=[^*\[\]]*$")
_SECRET = re.compile(r"#|\?(?=[^?]*=)")  # a question mark alone is a pattern's
_USER = re.compile(r"[^/?#@]*@")
_KEYS = re.compile(r"[^/?#@]*:(?!\d+(?:/|$))[^?#@]*@")  # keys with slashes that should have been escaped


def is_remote(name: str) -> bool:
    """Whether a name is that of a remote object.

    Examples
    --------
    >>> is_remote("s3://bucket/val.h5"), is_remote("s3.h5")
    (True, False)
    """
    return _URL.match(name) is not None


def foreign_scheme(name: str) -> str | None:
    """The scheme of a URL that nothing here reads, if it is one."""
    match = _ANY_URL.match(name)
    return match[1] if match and not is_remote(name) else None


def split_url(name: str) -> tuple[str, str, str, str]:
    """Scheme, credentials or an empty text, address, and query of a remote name.

    Examples
    --------
    >>> split_url("s3://key:secret@bucket/a/b.h5?region=eu-west-1")
    ('s3', 'key:secret', 'bucket/a/b.h5', 'region=eu-west-1')
    """
    scheme, _, rest = name.partition("://")
    if scheme in ("http", "https"):
        rest, _, query = rest.partition("#")[0].partition("?")
    else:
        found = _QUERY.search(rest)
        rest, query = (rest[: found.start()], rest[found.start() + 1 :]) if found else (rest, "")
    host, slash, path = rest.partition("/")
    user, _, host = host.rpartition("@")
    if ":" in user and AZURE.fullmatch(host):
        box, _, key = user.partition(":")  # the container stands where accounts stand elsewhere
        host, user = (f"{box}@{host}" if box else host), f":{key}"
    if scheme in ("gs", "gcs", "abfs", "abfss", "az") and ":" not in user:
        host, user = (f"{user}@{host}" if user else host), ""  # a container, or "anonymous": nothing secret
    return scheme, user, host + slash + path, query


def shown(name: str) -> str:
    """A name as messages and results have it: without credentials, query and fragment, which may hold some.

    Examples
    --------
    >>> shown("https://me:secret@host/val.h5?signature=abc#def")
    'https://host/val.h5'
    >>> shown("rgb=s3://key:secret@bucket/val.h5::a"), shown("val.h5?")
    ('rgb=s3://bucket/val.h5::a', 'val.h5?')
    """
    found = _ANY_URL.search(name)
    if found is None:
        return name
    before, name = name[: found.start()], name[found.start() :]
    address, separator, group = split_group(name)
    scheme, _, rest = address.partition("://")
    rest = split_url(address)[2] if is_remote(address) else _USER.sub("", rest.partition("?")[0], count=1)
    rest = _SECRET.split(_KEYS.sub("", rest, count=1), maxsplit=1)[0]
    return f"{before}{scheme}://{rest}{separator}{group}"


def scrub(text: str) -> str:
    """A message without what its URLs may say of credentials.

    Examples
    --------
    >>> scrub("https://me:secret@host/c.json?sig=1: no such file; expected JSON")
    'https://host/c.json: no such file; expected JSON'
    """
    return re.sub(rf"{_ANY_URL.pattern}\S+", lambda found: _scrubbed(found[0]), text) if "://" in text else text


def scrub_all(value: Any) -> Any:
    """JSON without what the URLs in it may say of credentials."""
    if isinstance(value, str):
        return shown(value) if _NAMED.match(value) else scrub(value)
    if isinstance(value, dict):
        return {scrub_all(key): scrub_all(item) for key, item in value.items()}
    return [scrub_all(item) for item in value] if isinstance(value, (list, tuple)) else value


def _scrubbed(url: str) -> str:
    bare = url.rstrip(":;,.)'\"")
    return shown(bare) + url[len(bare) :]


def split_group(name: str) -> tuple[str, str, str]:
    """File, ``::`` and group of a name; the colons of an address like ``[::1]`` are no separator."""
    found = _ANY_URL.match(name)
    at = max(0, name.find("/", found.end())) if found else 0
    path, separator, group = name[at:].partition("::")
    return name[:at] + path, separator, group


def secrets(words: Iterable[str]) -> list[str]:
    """What the URLs among the words of a command line keep to themselves; the longest first.

    Examples
    --------
    >>> secrets(["compare", "-m", "http://host/c.json?token=abcdef"])
    ['?token=abcdef', 'abcdef']
    """
    found: set[str] = set()
    words = list(words)
    for word in words:
        rest, visible = word.partition("://")[2], shown(word).partition("://")[2]
        at = rest.find(visible)
        for part in (rest[:at].rstrip("@"), rest[at + len(visible) :]) if rest and at >= 0 else ():
            found |= {part, *re.split(r"[?&=#:@;,]", part)[1 if part.startswith("?") else 0 :]}
    names = {pair.partition("=")[0] for word in words for pair in re.split(r"[?&#]", word)[1:] if "=" in pair}
    return sorted((one for one in found - names if len(one) > 3), key=lambda one: (-len(one), one))
