"""A calibration within an ONNX model: of its scores z, a z + b, folded into the layer that gives them if it can be."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from unoic_cli.errors import DataError, UsageError, one_line
from unoic_cli.version import __version__

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Kind = Literal["logits", "log_probs", "probs"]
Dim = int | str | None

EXPECTED = "expected an ONNX model"
SUFFIX = ".onnx"
MOST_BYTES = (1 << 31) - 1
"""Of a model without its external data: more is no protobuf message."""
CALIBRATION, OUTPUT, VERSION = "unoic_calibration", "unoic_output", "unoic_version"
"""Entries of the metadata of models that were written here."""

_FLOATS = {1: "float32", 10: "float16", 11: "float64"}
_LEAST_OPSET = 7
"""Before it, arithmetic did not broadcast as numpy does."""
_INPUTS_OF_ALL = 4
"""Of the format, from which on initializers need not be inputs, too, and those that are may be replaced by a caller."""
_MOVES = ("Identity", "Transpose")
_COPIES = (*_MOVES, "Cast", "Log")
_SOFTMAX = {"Softmax": "probs", "LogSoftmax": "log_probs"}
_RANKED = ("Gemm", "Conv", "ConvTranspose")
"""Operators whose results have as many axes as their weights."""
_LINEAR = ("Gemm", "MatMul", "Add", "Conv", "ConvTranspose")
_OF_SEVERAL = ("Add", "Sub", "Mul", "Div", "Mean", "Sum", "Min", "Max", "Concat")
_CALCULATES = (
    *("Identity", "Transpose", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Slice", "Gather", "Resize"),
    *("Upsample", "Clip", "ReduceMean", "ReduceSum", "QuantizeLinear", "DequantizeLinear", "Dropout", *_OF_SEVERAL),
)
"""Operators that make probabilities of probabilities, or nearly so: of all inputs where these are several, else of the
first."""
_ELSEWHERE = "its scores are used elsewhere, too"
_NO_BIAS = "its bias is not one number for each class"
_NO_SCORES = {
    "Sigmoid": "a probability of each class by itself",
    "HardSigmoid": "a probability of each class by itself",
    "Hardmax": "decisions",
}


@dataclass(frozen=True)
class Changed:
    """What was done to a model.

    Attributes
    ----------
    model : str
        The file that was read.
    output : str
        The output that is calibrated now.
    kind : {"logits", "log_probs", "probs"}
        What it gives, by the last node.
    shape : tuple of int, str or None
        Of the output: None where nothing is said of an axis.
    class_axis : int
    did : str
        In words.
    added : int
        Nodes that were added; 0 where a layer was changed.
    """

    model: str
    output: str
    kind: Kind
    shape: tuple[Dim, ...]
    class_axis: int
    did: str
    added: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {**vars(self), "shape": list(self.shape)}


def library() -> Any:
    """The package onnx.

    Raises
    ------
    UsageError
        It is not installed.
    """
    try:
        import onnx
        import onnx.numpy_helper
        import onnx.shape_inference
    except ImportError:
        expected = "expected it to be installed: pip install 'unoic[onnx]'"
        raise UsageError("--onnx", "onnx, which is not installed", expected) from None
    return onnx


def parsed(content: bytes, where: str) -> Any:
    """A model as it is stored, weights that lie in other files aside.

    Raises
    ------
    DataError
        The file holds no model.
    """
    onnx = library()
    try:
        model = onnx.load_model_from_string(content)
    except Exception as error:  # of protobuf, whose classes depend on how it is built
        raise DataError(where, "damaged, or a file of another kind", EXPECTED) from error
    if model.ir_version < 1 or not model.graph.output or not any(_is_plain(one.domain) for one in model.opset_import):
        raise DataError(where, "a file of another kind", EXPECTED)
    return model


def encoded(model: Any, where: str) -> bytes:
    """The bytes of a model.

    Raises
    ------
    DataError
        They are too many for the format.
    """
    expected = f"{EXPECTED} of at most {MOST_BYTES >> 20} MB (external data aside)"
    try:
        content = bytes(model.SerializeToString(deterministic=True))
    except MemoryError:
        raise
    except Exception as error:  # of protobuf, where it is too large
        raise DataError(where, f"no message of protobuf ({one_line(str(error), 100)})", expected) from error
    if len(content) > MOST_BYTES:
        raise DataError(where, f"{len(content):,} bytes", expected)
    return content


def external_files(model: Any) -> tuple[str, ...]:
    """Names of the files that hold weights, as the model has them: from its own folder."""
    found: dict[str, None] = {}
    for tensor in _tensors(model):
        if _is_external(tensor):
            found.update({_word(entry.value): None for entry in tensor.external_data if entry.key == "location"})
    return tuple(found)


def calibrate_model(
    model: Any, where: str, output: str | None, scale: float, bias: NDArray[np.float64], calibration: dict[str, Any]
) -> Changed:
    """Change a model so that one of its outputs is that of a z + b where it was that of the scores z.

    Parameters
    ----------
    model : onnx.ModelProto
        Changed in place.
    where : str
        Its file, for messages.
    output : str or None
        Which output; None where there is one.
    scale : float
    bias : (K,) float64
    calibration : dict
        Kept among the model's metadata.

    Raises
    ------
    UnoicError
        A model whose scores cannot be told, or of other classes.
    """
    if any(entry.key == CALIBRATION for entry in model.metadata_props):
        raise DataError(where, "a model written by unoic export, calibrated already", "expected the original model")
    try:
        done = _calibrate(model, where, output, scale, bias)
    except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise DataError(where, "nodes that make no sense", f"{EXPECTED} that is whole") from error
    for key, value in ((VERSION, __version__), (OUTPUT, done.output), (CALIBRATION, json.dumps(calibration))):
        entry = next((one for one in model.metadata_props if one.key == key), None)
        entry = model.metadata_props.add() if entry is None else entry
        entry.key, entry.value = key, value
    return done


def _calibrate(model: Any, where: str, output: str | None, scale: float, bias: NDArray[np.float64]) -> Changed:
    """Find the scores, and change the layer that gives them, or what is made of them."""
    graph = _Graph(model, where)
    name = graph.choose(output)
    scores = graph.scores_of(name, bias.size)
    if scale == 1.0 and not bias.any():
        did, added = "nothing to change: scale 1, and bias 0 for every class", 0
    else:
        plan = graph.plan(scores, scale, bias)
        did, added = (graph.fold(plan), 0) if plan.reason is None else graph.add(scores, plan, scale, bias)
    return Changed(where, _word(name), scores.kind, tuple(scores.shape), scores.class_axis, did, added)


def others_of(model: Any, output: str) -> list[str]:
    """Other outputs of a model."""
    return [_word(one.name) for one in model.graph.output if _word(one.name) != output]


def in_words(shape: Sequence[Dim] | None) -> str:
    """A shape as people write it.

    Examples
    --------
    >>> in_words(("N", 5, None, None)), in_words(None)
    ('(N, 5, ?, ?)', 'no shape')
    """
    return "no shape" if shape is None else f"({', '.join('?' if one is None else str(one) for one in shape)})"


# ------------------------------------------------------------------------------------------------


class _Scores(NamedTuple):
    """Where the scores of an output are.

    Attributes
    ----------
    output : str
    shape : list of int, str or None
    class_axis : int
        Of the output.
    tensor : str
        The scores: the output itself, or what its softmax takes.
    axis : int
        Their axis of classes.
    kind : {"logits", "log_probs", "probs"}
    softmax : NodeProto or None
        The node that takes them.
    path : list of NodeProto
        From the output back to the softmax.
    """

    output: str
    shape: list[Dim]
    class_axis: int
    tensor: str
    axis: int
    kind: Kind
    softmax: Any = None
    path: Sequence[Any] = ()

    @property
    def copies(self) -> list[str]:
        """The output, and what is between it and its softmax."""
        if self.softmax is None:
            return [self.output]
        return [*(node.output[0] for node in self.path), self.softmax.output[0]]


class _Plan(NamedTuple):
    """The layer that gives scores, what becomes of it, and why it cannot be changed.

    Attributes
    ----------
    node : NodeProto or None
        The layer; of a matrix product and a sum, the sum.
    changed : dict of str to ndarray
        Constants with their new values; "" is a bias where it has none.
    reason : str or None
        None where it can be changed.
    """

    node: Any
    changed: dict[str, NDArray[Any]]
    reason: str | None


class _Graph:
    """A model's graph: what makes each tensor, and what takes it."""

    def __init__(self, model: Any, where: str) -> None:
        self.onnx, self.model, self.graph, self.where = library(), model, model.graph, where
        self.opset = next(one.version for one in model.opset_import if _is_plain(one.domain))
        if self.opset < _LEAST_OPSET:
            expected = f"expected {_LEAST_OPSET} or higher: onnx.version_converter makes such a model"
            raise DataError(where, f"opset {self.opset}", expected)
        self.made = {name: node for node in self.graph.node for name in node.output if name}
        self.uses = Counter(name for node in _nodes(self.graph) for name in node.input if name)
        self.uses.update(one.name for inner in _inner(self.graph) for one in inner.output)
        self.inputs = {one.name for one in self.graph.input}
        self.outputs = [one.name for one in self.graph.output]
        self.weights = {one.name: one for one in self.graph.initializer}
        for node in self.graph.node:
            if node.op_type == "Constant" and _is_plain(node.domain) and node.output:
                self.weights.update((node.output[0], one.t) for one in node.attribute if one.name == "value")
        self.names = {*self.uses, *self.inputs, *self.outputs, *self.weights}
        self.names |= {name for node in _nodes(self.graph) for name in (node.name, *node.output)}
        self._inferred: Any = None

    # ------------------------------------------------------------------ which output, and what it is

    def choose(self, asked: str | None) -> str:
        """The output that holds the scores."""
        listed = ", ".join(f"{one.name} {in_words(_shape(one))}" for one in self.graph.output)
        if asked is None and len(self.outputs) > 1:
            found = f"{len(self.outputs)} outputs ({listed})"
            raise UsageError("--output", found, "expected the name of the one that holds the scores")
        if asked is not None and asked not in self.outputs:
            hint = " (the file to write is -o)" if asked.lower().endswith(".onnx") else ""
            raise UsageError("--output", f"{asked}, no output of {self.where}", f"expected one of {listed}{hint}")
        return self.outputs[0] if asked is None else asked

    def scores_of(self, output: str, n_classes: int) -> _Scores:
        """Where the scores of an output are.

        Raises
        ------
        DataError
            It holds none of these classes.
        """
        at, kind = f"{self.where}:{output}", self.elem_type(output)
        if output not in self.made or output in self.inputs or self.outputs.count(output) > 1:
            raise DataError(at, "an output that is no node's alone", "expected scores that the model computes")
        if kind not in _FLOATS:
            known = kind in self.onnx.TensorProto.DataType.values()
            found = self.onnx.TensorProto.DataType.Name(kind).lower() if kind and known else "unknown"
            raise DataError(at, f"{found} values", "expected scores of float16, float or double")
        shape = self.shape_of(output)
        wanted = f"expected (N, {n_classes}) or (N, {n_classes}, H, W)"
        if shape is None:
            raise DataError(at, "an output without a shape", wanted)
        if len(shape) not in (2, 4):
            raise DataError(at, f"shape {in_words(shape)}", wanted)
        axes = [i for i in (1, 3)[: len(shape) // 2] if shape[i] == n_classes or not isinstance(shape[i], int)]
        if not axes:
            found = f"{shape[1]} classes, of shape {in_words(shape)}"
            raise DataError(at, found, f"expected {n_classes}, as the calibration has")
        looked = [self._scores(output, shape, axis) for axis in axes]
        there = [one for one in looked if isinstance(one, _Scores)]
        if not there:
            raise DataError(at, str(looked[0]), "expected logits, or a softmax over the classes")
        stated = [self._stated_classes(one) for one in there]
        both = list(zip(there, stated, strict=True))
        sure = [one for one, known in both if known == n_classes]
        likely = [one for one, known in both if known is None and shape[one.class_axis] == n_classes]
        if not sure and not likely:
            found = next((f"{known} classes" for known in stated if known), f"shape {in_words(shape)}")
            raise DataError(at, found, f"expected {n_classes} classes, as the calibration has")
        return (sure + likely)[0]

    def _scores(self, output: str, shape: list[Dim], class_axis: int) -> _Scores | str:
        """Scores whose classes are on an axis of the output; or what is there instead."""
        node, _, axis, path = self.back(output, class_axis, len(shape), _COPIES)
        logs = sum(one.op_type == "Log" for one in path)
        name = "" if node is None or not _is_plain(node.domain) else node.op_type
        if name in _SOFTMAX:
            if logs > (name == "Softmax"):
                return f"a logarithm of {name}"
            over = _attribute(node, "axis", -1 if self.opset >= 13 else 1) % len(shape)
            moved = any(one.op_type == "Transpose" for one in path)
            behind = [None] * (len(shape) - 1 - axis) if moved else shape[axis + 1 :]
            if over != axis or (
                self.opset < 13 and any(one != 1 for one in behind)
            ):  # it took all axes from this one on
                return f"{name} over another axis than the classes'"
            kind: Any = "log_probs" if logs else _SOFTMAX[name]
            return _Scores(output, shape, class_axis, node.input[0], axis, kind, node, path)
        if name in _NO_SCORES and not logs:
            return f"{name}, {_NO_SCORES[name]}"
        if name == "Div" and getattr(self.made.get(node.input[0]), "op_type", "") == "Exp":
            return "exponentials over their sum, a softmax in pieces"
        if not logs and output in self.probabilities():
            return f"probabilities by way of {name}"
        return _Scores(output, shape, class_axis, output, class_axis, "logits")

    def back(self, name: str, axis: int, rank: int, through: Sequence[str]) -> tuple[Any, str, int, list[Any]]:
        """The node that makes what a tensor is a copy of, that tensor, its axis of classes, and the nodes between."""
        path: list[Any] = []
        while (node := self.made.get(name)) is not None and node.op_type in through and _is_plain(node.domain):
            if node.op_type == "Transpose":
                order = list(_attribute(node, "perm", range(rank)[::-1]))
                if sorted(order) != list(range(rank)):
                    raise DataError(f"{self.where}:{name}", f"a transposition {order}", f"{EXPECTED} that is whole")
                axis = order[axis]
            path.append(node)
            if len(path) > len(self.graph.node) or not node.input:
                raise DataError(f"{self.where}:{name}", "nodes that make no tensor", f"{EXPECTED} that is whole")
            name = node.input[0]
        return node, name, axis, path

    def probabilities(self) -> set[str]:
        """Tensors that are made of probabilities alone, by nodes that move them, or calculate with them."""
        found: set[str] = set()
        for node in self.graph.node:
            if not _is_plain(node.domain):
                continue
            taken = [*node.input] if node.op_type in _OF_SEVERAL else [*node.input[:1]]
            parts = [name for name in taken if name not in self.weights]
            made = node.op_type in _CALCULATES and parts and all(name in found for name in parts)
            if made or node.op_type in ("Softmax", *_NO_SCORES):
                found.update(node.output)
        return found

    def shape_of(self, output: str) -> list[Dim] | None:
        """As the model says it, else as it follows from the nodes."""
        said = next((_shape(one) for one in self.graph.output if one.name == output), None)
        if said is not None:
            return said
        said = next((_shape(one) for one in self.inferred().graph.output if one.name == output), None)
        if said is not None:  # the library makes names of axes up
            return [one if isinstance(one, int) else None for one in said]
        node = self.made.get(output)
        if node is not None and _is_plain(node.domain) and node.op_type in _RANKED and len(node.input) > 1:
            weights = self.weights.get(node.input[1])
            return None if weights is None else [None] * len(weights.dims)
        return None

    def elem_type(self, name: str) -> int:
        """The type of a tensor's entries, by its number; 0 where nothing tells."""
        for one in self._told():
            if one.name == name and one.type.tensor_type.elem_type:
                return int(one.type.tensor_type.elem_type)
        return 0

    def type_of(self, scores: _Scores) -> Any:
        """The type of scores."""
        import numpy as np

        casts = any(node.op_type == "Cast" for node in scores.path)
        found = self.elem_type(scores.tensor if casts else scores.output)
        if found not in _FLOATS:
            raise DataError(f"{self.where}:{scores.tensor}", "scores of an unknown type", f"{EXPECTED} with its types")
        return np.dtype(_FLOATS[found])

    def _told(self) -> Iterator[Any]:
        """What is said of tensors, then what follows."""
        yield from (*self.graph.output, *self.graph.value_info, *self.graph.input)
        yield from (*self.inferred().graph.output, *self.inferred().graph.value_info)

    def inferred(self) -> Any:
        """The model with the types and shapes that follow from its nodes."""
        if self._inferred is None:
            try:
                self._inferred = self.onnx.shape_inference.infer_shapes(self.model)
            except Exception:  # whatever the library thinks of it: less is known then
                self._inferred = self.onnx.ModelProto()
        return self._inferred

    def _stated_classes(self, scores: _Scores) -> int | None:
        """K by the weights of the layer."""
        node, _, axis, _ = self.back(scores.tensor, scores.axis, len(scores.shape), _MOVES)
        if node is not None and node.op_type == "Add":
            made = [self.made.get(one) for one in node.input]
            node = next((one for one in made if one is not None and one.op_type == "MatMul"), None)
        weights = None if node is None or len(node.input) < 2 else self.weights.get(node.input[1])
        if node is None or weights is None or not _is_plain(node.domain):
            return None
        dims, last = list(weights.dims), axis == len(scores.shape) - 1
        if node.op_type == "MatMul" and len(dims) == 2 and last:
            return int(dims[1])
        if node.op_type == "Gemm" and len(dims) == 2 and last:
            return int(dims[0] if _attribute(node, "transB", 0) else dims[1])
        if node.op_type == "Conv" and dims and axis == 1:
            return int(dims[0])
        if node.op_type == "ConvTranspose" and len(dims) > 1 and axis == 1:
            return int(dims[1] * _attribute(node, "group", 1))
        return None

    # ------------------------------------------------------------------ the layer that gives the scores

    def plan(self, scores: _Scores, scale: float, bias: NDArray[np.float64]) -> _Plan:
        """The layer that gives scores, and its new constants: a (W x + c) + b = (a W) x + (a c + b)."""
        node, _, axis, path = self.back(scores.tensor, scores.axis, len(scores.shape), _MOVES)
        if node is None or node.op_type not in _LINEAR or not _is_plain(node.domain):
            return _Plan(node, {}, "")
        known = self._constants(node, axis, len(scores.shape))
        if isinstance(known, str):
            return _Plan(node, {}, known)
        weights, offset = known
        owned = [*([weights] if scale != 1.0 else []), *([offset] if offset else [])]
        reason = next(filter(None, map(self._why_not, owned)), None)
        inside = [] if scores.softmax is None else [scores.tensor]
        if not self._alone([*scores.copies, *inside, *(one.input[0] for one in path)]):
            reason = _ELSEWHERE
        if reason is not None:
            return _Plan(node, {}, reason)
        changed: dict[str, NDArray[Any]] = {}
        if scale != 1.0:
            old = self.array(weights)
            changed[weights] = _rounded(scale * _wide(old), old.dtype)
            if not _keeps(old, changed[weights]):
                return _Plan(node, {}, f"its weights times {scale:g} leave {old.dtype}")
        old = self.array(offset) if offset else _zeros(bias.shape, self.type_of(scores))
        if old.ndim and old.shape[-1] not in (1, bias.size):
            return _Plan(node, {}, _NO_BIAS)
        times = scale * _attribute(node, "beta", 1.0) if node.op_type == "Gemm" else scale
        changed[offset] = self._bias((times * _wide(old) if times else 0.0) + bias, old.dtype)
        return _Plan(node, changed, None)

    def _alone(self, tensors: Sequence[str]) -> bool:
        """Whether an output, and what it is a copy of, serve nothing else."""
        last, *between = tensors
        return self.uses[last] == 0 and all(self.uses[one] == 1 and one not in self.outputs for one in between)

    def _constants(self, node: Any, axis: int, rank: int) -> tuple[str, str] | str:
        """Names of the weights and of the bias ("" without one) of a layer, or why it cannot be changed."""
        inputs = list(node.input)
        if node.op_type == "Add":
            for one, other in (inputs, inputs[::-1]):
                product = self.made.get(one)
                if product is not None and product.op_type == "MatMul" and other in self.weights:
                    if self.uses[one] > 1 or one in self.outputs:
                        return _ELSEWHERE
                    dims = list(self.weights[other].dims)
                    plain = axis == rank - 1 and len(dims) <= rank and all(extent == 1 for extent in dims[:-1])
                    return (product.input[1], other) if plain else _NO_BIAS
            return "its terms are no product and a constant"
        if node.op_type == "MatMul":
            return "it has no bias"
        offset = inputs[2] if len(inputs) > 2 else ""
        if axis != 1:
            return "its classes are on another axis"
        if offset and offset not in self.weights:
            return "its bias is no constant"
        if offset and any(extent != 1 for extent in list(self.weights[offset].dims)[:-1]):
            return _NO_BIAS
        return inputs[1], offset

    def _why_not(self, name: str) -> str | None:
        """Why a constant cannot be changed."""
        if name not in self.weights:
            return "its weights are no constants"
        if self.uses[name] > 1 or name in self.outputs:
            return "its weights are used elsewhere, too"
        if name in self.inputs and self.model.ir_version >= _INPUTS_OF_ALL:
            return "its weights are inputs, which a caller may replace"
        if _is_external(self.weights[name]):
            return "its weights lie in another file"
        return None if self.weights[name].data_type in _FLOATS else "its weights are no floats"

    def array(self, name: str) -> NDArray[Any]:
        """The values of a constant."""
        try:
            found: NDArray[Any] = self.onnx.numpy_helper.to_array(self.weights[name])
        except Exception as error:  # of numpy or the library: sizes that contradict each other
            raise DataError(f"{self.where}:{name}", "damaged weights", f"{EXPECTED} that is whole") from error
        return found

    def _bias(self, values: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
        """Numbers of a bias as they are stored."""
        import numpy as np

        found = _rounded(values, dtype)
        lost = np.isfinite(values) & ~np.isfinite(found)
        if lost.any():
            expected = f"expected numbers that {found.dtype} holds"
            raise DataError(f"{self.where}", f"a bias of {values[lost][0]:g} of {found.dtype} scores", expected)
        return found

    # ------------------------------------------------------------------ what is changed

    def fold(self, plan: _Plan) -> str:
        """Change the constants of a layer."""
        node = plan.node
        for name, values in plan.changed.items():
            if name:
                tensor = self.weights[name]
                tensor.CopyFrom(self.onnx.numpy_helper.from_array(values, tensor.name))
            else:
                del node.input[2:]
                node.input.append(self.constant(f"{node.output[0]}_bias", values))
        for attribute in [one for one in node.attribute if one.name == "beta" and node.op_type == "Gemm"]:
            node.attribute.remove(attribute)  # of 1 now
        return f"folded into {_called(node)}"

    def add(self, scores: _Scores, plan: _Plan, scale: float, bias: NDArray[np.float64]) -> tuple[str, int]:
        """Multiply scores and add to them: before their softmax, or behind the output. Other outputs stay."""
        import numpy as np

        dtype, before, source = self.type_of(scores), scores.softmax, scores.tensor
        alone = self._alone(scores.copies)
        if before is None or not alone:
            freed = self.rename(scores.output)
            source = freed if source == scores.output else source
        made: list[Any] = []

        def put(kind: str, values: NDArray[Any], name: str) -> str:
            constant = self.constant(f"{scores.output}_{name}", values)
            out = self.fresh(f"{scores.output}_{name}_{kind.lower()}")
            made.append(self.onnx.helper.make_node(kind, [source, constant], [out], name=self.fresh(f"unoic_{name}")))
            return out

        if scale != 1.0:
            factor = _rounded(np.array(scale), dtype)
            if not (np.isfinite(factor) and _keeps(np.ones((), dtype), factor)):
                raise DataError(
                    self.where, f"a scale of {scale:g} of {dtype} scores", f"expected one that {dtype} holds"
                )
            source = put("Mul", factor, "scale")
        if bias.any():
            axes = (1,) * (len(scores.shape) - 1 - scores.axis)
            source = put("Add", self._bias(bias, dtype).reshape(bias.size, *axes), "bias")
        added = len(made)
        if before is None:
            made[-1].output[0] = scores.output
            self.graph.node.extend(made)
        elif alone:
            before.input[0] = source
            at = next(i for i, node in enumerate(self.graph.node) if before.output[0] in node.output)
            for i, node in enumerate(made):
                self.graph.node.insert(at + i, node)
        else:
            for node in (before, *reversed(scores.path)):
                copy = self.onnx.NodeProto()
                copy.CopyFrom(node)
                copy.name, copy.input[0] = self.fresh(node.name or node.op_type), source
                source = self.fresh(f"{scores.output}_{node.op_type.lower()}")
                del copy.output[1:]
                copy.output[0] = source
                made.append(copy)
            made[-1].output[0] = scores.output
            added = len(made)
            self.graph.node.extend(made)
        nodes = {1: "one node", 2: "two nodes"}.get(added, f"{added} nodes")
        place = f"before {_called(before)}" if before is not None else "behind the output"
        layer = f" ({_called(plan.node)} stays: {plan.reason})" if plan.reason else ""
        return f"{nodes} added {place}{layer}", added

    def rename(self, name: str) -> str:
        """Free the name of an output: what takes it takes it by its new one."""
        new, node = self.fresh(f"{name}_uncalibrated"), self.made[name]
        for other in _nodes(self.graph):
            for i, one in enumerate(other.input):
                if one == name:
                    other.input[i] = new
        for inner in _inner(self.graph):
            for value in inner.output:
                if value.name == name:
                    value.name = new
        node.output[list(node.output).index(name)] = new
        return new

    def constant(self, name: str, values: NDArray[Any]) -> str:
        """A new constant; its name."""
        tensor = self.onnx.numpy_helper.from_array(values, self.fresh(name))
        self.graph.initializer.append(tensor)
        if self.model.ir_version < _INPUTS_OF_ALL:
            self.graph.input.append(
                self.onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, values.shape)
            )
        return str(tensor.name)

    def fresh(self, name: str) -> str:
        """A name that nothing has."""
        found = next(
            one for one in (name, *(f"{name}_{i}" for i in range(len(self.names) + 1))) if one not in self.names
        )
        self.names.add(found)
        return found


def _is_plain(domain: str) -> bool:
    """Whether operators of a domain are those of ONNX itself."""
    return domain in ("", "ai.onnx")


def _inner(graph: Any) -> Iterator[Any]:
    """Graphs within the nodes of a graph, at any depth."""
    for node in graph.node:
        for attribute in node.attribute:
            for one in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield one
                yield from _inner(one)


def _nodes(graph: Any) -> Iterator[Any]:
    """Nodes of a graph, and of those within."""
    yield from graph.node
    for inner in _inner(graph):
        yield from inner.node


def _tensors(model: Any) -> Iterator[Any]:
    """All constants of a model."""
    for graph in (model.graph, *_inner(model.graph)):
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
    functions = [node for function in model.functions for node in function.node]
    for node in (*_nodes(model.graph), *functions):
        for attribute in node.attribute:
            yield from (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors)


def _is_external(tensor: Any) -> bool:
    return bool(tensor.data_location == 1)


def _shape(value: Any) -> list[Dim] | None:
    """The shape that is said of a tensor, if one is."""
    if not value.type.tensor_type.HasField("shape"):
        return None
    dims = value.type.tensor_type.shape.dim
    return [one.dim_value if one.HasField("dim_value") else _word(one.dim_param) or None for one in dims]


def _word(text: Any) -> str:
    """Text of a model, which the library gives as bytes where it is no UTF-8."""
    return text.decode("utf-8", "replace") if isinstance(text, bytes) else str(text)


def _attribute(node: Any, name: str, default: Any) -> Any:
    for one in node.attribute:
        if one.name == name:
            return one.i if one.type == 2 else one.f if one.type == 1 else one.ints
    return default


def _called(node: Any) -> str:
    """A node by its operator and name."""
    return f"{node.op_type} {node.name or 'of ' + (node.output[0] if node.output else '?')}"


def _wide(values: NDArray[Any]) -> NDArray[np.float64]:
    return values.astype("float64")


def _zeros(shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    import numpy as np

    return np.zeros(shape, dtype)


def _rounded(values: NDArray[np.float64], dtype: Any) -> NDArray[Any]:
    import numpy as np

    with np.errstate(over="ignore", under="ignore"):
        return values.astype(dtype)


def _keeps(old: NDArray[Any], new: NDArray[Any]) -> bool:
    """Whether scaled weights are finite, and as precise as they were: none fell below the normal numbers."""
    import numpy as np

    least = np.finfo(old.dtype).tiny
    fell = (np.abs(old) >= least) & (np.abs(new) < least)
    return bool((np.isfinite(new) | ~np.isfinite(old)).all() and not fell.any())
