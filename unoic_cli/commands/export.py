"""`export`: the numbers that make a network's last linear layer the calibrated one, and ONNX models that have them."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, Unpack

from unoic_cli.brief import brief, detached, in_html
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.calls import ArgumentError
from unoic_cli.commands import onnx_model
from unoic_cli.data.facts import exists, read_bytes
from unoic_cli.data.steps import Steps, write_bytes
from unoic_cli.errors import DataError, UsageError
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import Notes, check_output, output_path
from unoic_cli.resolve.options import ForceOption, TellOption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMS = {".npy": "npy", ".npz": "npz", ".json": "json", ".safetensors": "safetensors"}
_OF_RUNS = ("output", "onnx", "notes")
"""What the JSON of the command has, and a layer has not."""


@dataclass(frozen=True)
class ExportResult:
    """A layer: softmax(scale * z + bias) is the calibrated posterior of the logits z.

    Attributes
    ----------
    scale : float
        a = 1 / T.
    bias : tuple of float
        (K,) lambda * s_k + b_k; -inf for classes that are never predicted.
    lam, temperature : float
        Of the calibration.
    class_names : tuple of str or None
    output : str or None
        The file written.
    lines : str or None
        Lines for PyTorch, where they were asked for.
    model : Changed or None
        What was done to an ONNX model.
    notes : tuple of str
        What was worth saying on the way.
    """

    scale: float
    bias: tuple[float, ...]
    lam: float
    temperature: float
    class_names: tuple[str, ...] | None
    output: str | None = None
    lines: str | None = None
    model: onnx_model.Changed | None = None
    notes: tuple[str, ...] = ()

    __repr__ = brief
    _repr_html_ = in_html

    def glance(self) -> dict[str, list[Any]]:
        """What notebooks show: the classes."""
        return {"class": list(self.class_names or map(str, range(len(self.bias)))), "bias": list(self.bias)}

    @detached
    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command; null for -inf."""
        return {
            "scale": self.scale,
            "bias": [None if value == -float("inf") else value for value in self.bias],
            "lambda": self.lam,
            "temperature": self.temperature,
            "class_names": None if self.class_names is None else list(self.class_names),
            "output": self.output,
            "onnx": None if self.model is None else self.model.to_dict(),
            "notes": list(self.notes),
        }

    def torch(self) -> str:
        """Lines for a ``torch.nn.Linear`` (or a convolution) named ``head``.

        Examples
        --------
        >>> print(ExportResult(0.5, (0.0, 1.25), 1.0, 2.0, None).torch(), end="")
        import torch
        with torch.no_grad():  # softmax(0.5 z + bias): lambda 1, temperature 2
            head.weight.mul_(0.5)
            head.bias.mul_(0.5).add_(torch.tensor([0.0, 1.25], dtype=head.bias.dtype, device=head.bias.device))
        """
        numbers = ", ".join('float("-inf")' if value == -float("inf") else repr(value) for value in self.bias)
        return (
            "import torch\n"
            f"with torch.no_grad():  # softmax({self.scale:g} z + bias): lambda {self.lam:g}, temperature "
            f"{self.temperature:g}\n"
            f"    head.weight.mul_({self.scale!r})\n"
            f"    head.bias.mul_({self.scale!r}).add_(torch.tensor([{numbers}], dtype=head.bias.dtype, "
            "device=head.bias.device))\n"
        )


class ExportOptions(TypedDict, total=False):
    """Options of `export`."""

    bias: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "--bias",
            "FILE",
            "Write the layer: .npy (the bias alone, where the temperature is 1), or .npz, .json or .safetensors "
            "(arrays scale and bias).",
            says="where",
        ),
    ]
    onnx: Annotated[
        str | os.PathLike[str] | None,
        Option(
            "--onnx",
            "MODEL",
            "An ONNX model of the network; what is written is the calibrated one, of the same inputs and outputs "
            "(unoic[onnx]).",
        ),
    ]
    output: Annotated[
        str | os.PathLike[str] | None,
        Option("-o", "FILE", "The model to write, with --onnx; without, the same as --bias.", says="where"),
    ]
    output_name: Annotated[
        str | None,
        Option("--output", "NAME", "With --onnx: which output holds the scores, where the model has several."),
    ]
    torch: Annotated[
        bool, Option("--torch", None, "Print lines of PyTorch that change a layer named head.", says="how")
    ]
    force: ForceOption
    tell: TellOption


def export(calibration: Calibration | str | os.PathLike[str], **options: Unpack[ExportOptions]) -> Steps[ExportResult]:
    """Turn a calibration of one network into the scale and the bias of its last linear layer.

    softmax(a (W x + c) + lambda s + b) = softmax((a W) x + (a c + lambda s + b)): with a = 1 / T, the weights are
    multiplied by `scale`, and the layer's own bias c by it, too, before `bias` is added.

    Parameters
    ----------
    calibration : Calibration or path
    **options : Unpack[ExportOptions]
        See `ExportOptions`.

    Returns
    -------
    ExportResult

    Raises
    ------
    UnoicError
        A calibration of several networks, or one whose scores have a delta of their own: no layer does that. A model
        whose scores cannot be told, or of other classes.

    Notes
    -----
    An ONNX model is changed in its last ``Gemm``, ``MatMul`` and ``Add``, or ``Conv``, where nothing else depends on
    what would change; else nodes are added. Where it ends with a softmax, that is taken of a z + b in place of z.

    Examples
    --------
    >>> import numpy as np
    >>> from unoic_cli import export, search_lambda
    >>> scores = np.log([[0.8, 0.2], [0.6, 0.4], [0.7, 0.3], [0.2, 0.8]])
    >>> made = search_lambda(scores, [0, 1, 0, 1], source_prior=[3, 1], lam=1).calibration
    >>> layer = export(made)
    >>> layer.scale, [round(value, 6) for value in layer.bias]
    (1.0, [-0.405465, 0.693147])
    """
    chosen, where = filled(ExportOptions, options), "calibration"
    model, output = output_path(chosen["onnx"]), _output(chosen)
    inputs: tuple[str, ...] = () if model is None else (model,)
    if not isinstance(calibration, Calibration):
        if not isinstance(calibration, (str, os.PathLike)):
            raise ArgumentError(
                where, f"a {type(calibration).__name__}", "expected a calibration, or the name of a file"
            )
        where = os.fspath(calibration)
        inputs = (*inputs, where)
        calibration = yield from Calibration.read(where)
    if output is not None:
        yield from check_output(output, force=chosen["force"], inputs=inputs)
    elif chosen["force"]:
        raise UsageError("--force", "--force without --bias", "expected a file that it may replace")
    made = _layer(calibration, where, output)
    if model is not None and output is not None:
        made = yield from _changed_model(made, calibration, model, output, chosen)
    elif output is not None:
        form = _form(output)
        if form == "npy" and made.scale != 1.0:
            found = f"{output}, where the temperature is {made.temperature:g}"
            raise UsageError("--bias", found, "expected .npz, .json or .safetensors, which hold the scale, too")
        yield from write_bytes(output, encoded(made, form))
    return replace(made, lines=made.torch()) if chosen["torch"] else made


def _output(chosen: ExportOptions) -> str | None:
    """The file to write, whose name says its form."""
    bias, output = output_path(chosen["bias"]), output_path(chosen["output"])
    if chosen["onnx"] is None:
        if chosen["output_name"] is not None:
            raise UsageError("--output", "--output without --onnx", "expected -o FILE, or --onnx beside it")
        if bias is not None and output is not None:
            raise UsageError("-o", "-o beside --bias", "expected one of them")
        output = output if bias is None else bias
        if output is not None:
            _form(output)
        return output
    if bias is not None:
        raise UsageError("--bias", "--bias beside --onnx", "expected one of them")
    if output is None:
        raise UsageError("--onnx", "--onnx without -o", "expected a name for the calibrated model (-o FILE.onnx)")
    if os.path.splitext(output)[1].lower() != onnx_model.SUFFIX:
        raise UsageError("-o", output, f"expected a name that ends with {onnx_model.SUFFIX}")
    return output


def _changed_model(
    made: ExportResult, calibration: Calibration, path: str, output: str, chosen: ExportOptions
) -> Steps[ExportResult]:
    """Write an ONNX model with the layer in it."""
    import numpy as np

    onnx_model.library()  # before anything is read
    notes = Notes(chosen["tell"])
    model = onnx_model.parsed((yield from read_bytes(path, onnx_model.EXPECTED, onnx_model.MOST_BYTES)), path)
    folder = os.path.dirname(path)
    outside = [os.path.join(folder, name) for name in onnx_model.external_files(model)]
    for name in outside:
        if not (yield from exists(name)):
            raise DataError(path, f"weights in {name}, which is not there", "expected the whole model")
    if outside:
        yield from check_output(output, force=chosen["force"], inputs=tuple(outside))
        if os.path.realpath(os.path.dirname(output)) != os.path.realpath(folder):
            found = f"{output}, and weights of {path} lie in {os.path.basename(outside[0])} beside it"
            raise UsageError("-o", found, f"expected a name in {folder or 'its folder'}: the new model reads them, too")
    done = onnx_model.calibrate_model(
        model, path, chosen["output_name"], made.scale, np.array(made.bias), calibration.to_dict()
    )
    others = onnx_model.others_of(model, done.output)
    if others:
        notes.add(f"{path}: only {done.output} is calibrated; {', '.join(others)} as before")
    yield from write_bytes(output, onnx_model.encoded(model, output))
    return replace(made, model=done, notes=tuple(notes.texts))


def _form(output: str) -> str:
    suffix = os.path.splitext(output)[1].lower()
    if suffix not in FORMS:
        more = " (.onnx: with --onnx MODEL)" if suffix == onnx_model.SUFFIX else ""
        raise UsageError("--bias", output, f"expected a name that ends with {', '.join(FORMS)}{more}")
    return FORMS[suffix]


def _layer(calibration: Calibration, where: str, output: str | None) -> ExportResult:
    import numpy as np

    if len(calibration.modalities) > 1:
        names = ", ".join(str(one.name) for one in calibration.modalities)
        raise UsageError(
            where, f"a fusion of {names}", "expected the calibration of one network, which has a last layer"
        )
    modality = calibration.modalities[0]
    if modality.delta is not None:
        expected = "expected a calibration without: a layer has one scale for all samples"
        raise UsageError(where, "statistics of delta, a factor of each sample", expected)
    slopes = calibration.slopes()
    bias: NDArray[np.float64] = calibration.lam * slopes.values
    if modality.offsets is not None:
        bias = bias + np.array(modality.offsets)
    bias = np.where(slopes.masked, -np.inf, bias)
    scale = 1.0 / modality.temperature
    values = tuple(bias.tolist())
    return ExportResult(scale, values, calibration.lam, modality.temperature, calibration.class_names, output)


def encoded(made: ExportResult, form: str) -> bytes:
    """The file of a layer.

    Parameters
    ----------
    made : ExportResult
    form : {"npy", "npz", "json", "safetensors"}
    """
    import numpy as np

    scale, bias = np.array(made.scale), np.array(made.bias)
    if form == "json":
        content = {key: value for key, value in made.to_dict().items() if key not in _OF_RUNS}
        return (json.dumps(content, indent=1) + "\n").encode()
    if form == "safetensors":
        return _safetensors({"bias": bias, "scale": scale})
    file = io.BytesIO()
    if form == "npy":
        np.save(file, bias)
    else:
        np.savez(file, scale=scale, bias=bias)
    return file.getvalue()


def _safetensors(arrays: dict[str, NDArray[np.float64]]) -> bytes:
    """Eight bytes that say how long the header is, the header, the numbers: little-endian float64."""
    header, parts, at = {}, [], 0
    for name, array in arrays.items():
        data = array.astype("<f8").tobytes()
        header[name] = {"dtype": "F64", "shape": list(array.shape), "data_offsets": [at, at + len(data)]}
        parts.append(data)
        at += len(data)
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + b"".join(parts)
