"""What an ONNX model is like, without its library and without its weights in memory."""

from __future__ import annotations

from typing import Any

from unoic_cli.commands.onnx_model import CALIBRATION, EXPECTED, OUTPUT, Dim
from unoic_cli.errors import DataError, StorageError
from unoic_cli.storage import witness
from unoic_cli.storage.protobuf import Field, Messages
from unoic_cli.storage.whole import open_regular

TYPES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    16: "bfloat16",
}
MOST_OUTPUTS = 1000
"""Inputs and outputs that are looked at."""


def outline(path: str) -> dict[str, Any]:
    """Version, operators, inputs, outputs and size of a model, and the calibration that `export` has put into it.

    Raises
    ------
    UnoicError
        It cannot be read, or is none.
    """
    file = open_regular(path, EXPECTED)
    try:
        return _Outline(Messages(file)).found()
    except ValueError as error:
        raise DataError(path, f"damaged, or a file of another kind ({error})", EXPECTED) from None
    except OSError as error:
        raise StorageError(path, f"reading failed ({error.strerror})", "expected readable data") from None
    finally:
        witness.let_go(file)


class _Outline:
    """One model."""

    def __init__(self, messages: Messages) -> None:
        self.messages = messages
        self.ir, self.opset, self.producer = 0, 0, ""
        self.metadata: dict[str, str] = {}
        self.inputs: list[dict[str, Any]] = []
        self.outputs: list[dict[str, Any]] = []
        self.constants: set[str] = set()
        self.makers: dict[str, str] = {}
        self.n_nodes = self.weight_bytes = 0
        self.files: dict[str, None] = {}

    def found(self) -> dict[str, Any]:
        """All of it, as JSON."""
        text = self.messages.text
        graph = False
        for field in self.messages.fields():
            if field.number == 1:
                self.ir = field.value
            elif field.number == 2:
                self.producer = text(field)[:200]
            elif field.number == 7:
                self._graph(field)
                graph = True
            elif field.number == 8:
                domain, version = self._pair(field, 1, 2)
                self.opset = self.opset or (0 if domain not in ("", "ai.onnx") else int(version))
            elif field.number == 14:
                key, value = self._pair(field, 1, 2)
                self.metadata[str(key)] = str(value)
        if not graph or not self.ir or not self.outputs:
            raise ValueError("no graph with outputs")
        return {
            "ir_version": self.ir,
            "opset": self.opset or None,
            "producer": self.producer,
            "inputs": [one for one in self.inputs if one["name"] not in self.constants],
            "outputs": [{**one, "from": self.makers.get(one["name"])} for one in self.outputs],
            "n_nodes": self.n_nodes,
            "weight_bytes": self.weight_bytes,
            "weight_files": list(self.files),
            "calibration": self.metadata.get(CALIBRATION),
            "calibrated": self.metadata.get(OUTPUT),
        }

    def _pair(self, message: Field, *numbers: int) -> tuple[str | int, str | int]:
        """Two fields of a message."""
        found: dict[int, str | int] = {}
        for field in self.messages.fields(message.begin, message.end):
            found[field.number] = self.messages.text(field) if field.size else field.value
        first, second = numbers
        return found.get(first, "") or "", found.get(second, 0)

    def _graph(self, graph: Field) -> None:
        makers: dict[str, str] = {}
        for field in self.messages.fields(graph.begin, graph.end):
            if field.number == 1:
                self.n_nodes += 1
                self._node(field, makers)
            elif field.number == 5:
                self._constant(field)
            elif field.number in (11, 12):
                held = self.inputs if field.number == 11 else self.outputs
                if len(held) < MOST_OUTPUTS or field.number == 11:
                    held.append(self._value(field))
        names = {one["name"] for one in self.outputs}
        self.makers = {name: op for name, op in makers.items() if name in names}

    def _node(self, node: Field, makers: dict[str, str]) -> None:
        made, op = [], ""
        for field in self.messages.fields(node.begin, node.end):
            if field.number == 2:
                made.append(self.messages.text(field))
            elif field.number == 4:
                op = self.messages.text(field)
        makers.update(dict.fromkeys(made, op))

    def _constant(self, tensor: Field) -> None:
        for field in self.messages.fields(tensor.begin, tensor.end):
            if field.number == 8:
                self.constants.add(self.messages.text(field))
            elif field.number == 13:
                key, value = self._pair(field, 1, 2)
                if key == "location":
                    self.files[str(value)] = None
            elif field.number in (4, 5, 6, 7, 9, 10, 11):
                self.weight_bytes += field.size

    def _value(self, value: Field) -> dict[str, Any]:
        """An input or output: its name, type and shape."""
        name, dtype, shape = "", None, None
        for field in self.messages.fields(value.begin, value.end):
            if field.number == 1:
                name = self.messages.text(field)
            elif field.number == 2:
                for kind in self.messages.fields(field.begin, field.end):
                    if kind.number == 1:  # a tensor
                        dtype, shape = self._type(kind)
        return {"name": name, "dtype": dtype, "shape": shape}

    def _type(self, kind: Field) -> tuple[str | None, list[Dim] | None]:
        dtype: str | None = None
        shape: list[Dim] | None = None
        for field in self.messages.fields(kind.begin, kind.end):
            if field.number == 1:
                dtype = TYPES.get(field.value, "another type")
            elif field.number == 2:
                shape = [self._dim(one) for one in self.messages.fields(field.begin, field.end) if one.number == 1]
        return dtype, shape

    def _dim(self, dim: Field) -> Dim:
        found: Dim = None
        for field in self.messages.fields(dim.begin, dim.end):
            if field.number == 1:
                found = field.value
            elif field.number == 2:
                found = self.messages.text(field) or None
        return found
