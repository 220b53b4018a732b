"""What the parser need not do: typer makes a pydantic validator for each option of a command, given or not.

That takes longer than all else that a command line does. What was not given, switches and text pass without one here;
other values are checked as ever. It rests on private names of typer (0.29); without them, all validators are made.
"""

from __future__ import annotations

import contextlib
from typing import Any


class _Late:
    """Turns what was given for an option into its type, by its validator if it takes one."""

    def __init__(self, parameter: Any, build: Any) -> None:
        self.parameter, self.build = parameter, build
        self.many = parameter.multiple or parameter.nargs == -1
        self.kind = parameter.type_descriptor.annotation

    def coerce(self, value: Any, **more: Any) -> Any:
        """The value; None or () where there is none."""
        if value is None or (self.many and not value):
            return () if self.many else None
        if type(value) is self.kind:
            return value
        if self.kind == list[str] and all(isinstance(one, str) for one in value):
            return list(value)
        return self.build(self.parameter.type_descriptor).coerce(value, **more)


def hasten() -> None:
    """Let typer make validators when it needs them."""
    try:
        from typer._coercion import build_runtime_param
        from typer.core import _TyperParameter
    except ImportError:
        return

    def late(self: Any) -> _Late:
        return _Late(self, build_runtime_param)

    with contextlib.suppress(
        ImportError, AttributeError
    ):  # help beside completed words is plain, and rich slow to load
        from typer import _completion_classes

        _completion_classes._sanitize_help_text = lambda text: text
    _TyperParameter.get_runtime_param = late  # type: ignore[method-assign,assignment]
