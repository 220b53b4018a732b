"""Names and versions of the JSON that commands print; docs/results.md lists the keys of each."""

from __future__ import annotations

import json
from typing import Any, TypeVar

from unoic_cli.errors import DataError

T = TypeVar("T")
STATE = b"unoic state "
"""What state files of any version begin with."""
SCHEMAS = {
    "CalibrateResult": "unoic.calibrate/1",
    "CompareResult": "unoic.compare/1",
    "ConvertResult": "unoic.convert/1",
    "DoctorResult": "unoic.doctor/1",
    "EvaluateResult": "unoic.evaluate/1",
    "ExportResult": "unoic.export/1",
    "FitDeltaResult": "unoic.fit-delta/1",
    "FitTemperatureResult": "unoic.fit-temperature/1",
    "InfoResult": "unoic.info/1",
    "PackResult": "unoic.pack/1",
    "PageResult": "unoic.page/1",
    "PlotResult": "unoic.plot/1",
    "PriorResult": "unoic.prior/1",
    "SearchResult": "unoic.search-lambda/1",
    "ShowResult": "unoic.show/1",
    "StateResult": "unoic.state/1",
}
"""By the class of the result. A version rises when a key goes, or means something else; a new key changes none."""


def marked(result: Any) -> dict[str, Any]:
    """The JSON of a result with its schema as first key."""
    return {"schema": SCHEMAS[type(result).__name__], **result.to_dict()}


def check_schema(content: dict[str, Any], where: str) -> None:
    """Refuse JSON of ours that another version wrote; files without a schema, or with one of others, are none of it.

    Examples
    --------
    >>> check_schema({"counts": [1, 2]}, "c.json")
    >>> check_schema({"schema": "unoic.prior/2", "counts": [1, 2]}, "c.json")
    Traceback (most recent call last):
    unoic_cli.errors.DataError: c.json: schema unoic.prior/2; expected unoic.prior/1
    """
    stated = content.get("schema")
    if isinstance(stated, str) and stated.startswith("unoic.") and stated not in SCHEMAS.values():
        known = [schema for schema in SCHEMAS.values() if schema.startswith(stated.split("/")[0] + "/")]
        raise DataError(where, f"schema {stated}", f"expected {' or '.join(known or SCHEMAS.values())}")


def typed(content: Any, kind: type[T], where: str, name: str, expected: str) -> T:
    """JSON as a dataclass of these keys; what it calls otherwise is passed over.

    Raises
    ------
    DataError
        An entry is missing, or of another type.
    """
    import msgspec  # where a file is read, and not sooner

    try:
        plain = json.loads(json.dumps(content, default=lambda value: value.tolist()))  # without numbers of numpy
        return msgspec.convert(plain, kind)
    except (msgspec.ValidationError, ArithmeticError, AttributeError, RecursionError, TypeError, ValueError) as error:
        raise DataError(where, f"{name} ({str(error).replace('$.lam`', '$.lambda`')})", expected) from None
