"""`export`: the numbers that make a network's last linear layer the calibrated one."""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any, TypedDict, Unpack

from unoic_cli.brief import brief
from unoic_cli.calibrations.calibration import Calibration
from unoic_cli.calls import ArgumentError
from unoic_cli.data.steps import Steps, write_bytes
from unoic_cli.errors import UsageError
from unoic_cli.options import Option, filled
from unoic_cli.resolve.common import check_output, output_path
from unoic_cli.resolve.options import ForceOption, TellOption

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FORMS = {".npy": "npy", ".npz": "npz", ".json": "json", ".safetensors": "safetensors"}


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
    """

    scale: float
    bias: tuple[float, ...]
    lam: float
    temperature: float
    class_names: tuple[str, ...] | None
    output: str | None = None
    lines: str | None = None

    __repr__ = brief

    def to_dict(self) -> dict[str, Any]:
        """The JSON of the command; null for -inf."""
        return {
            "scale": self.scale,
            "bias": [None if value == -float("inf") else value for value in self.bias],
            "lambda": self.lam,
            "temperature": self.temperature,
            "class_names": None if self.class_names is None else list(self.class_names),
            "output": self.output,
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
            "--bias -o",
            "FILE",
            "Write the layer: .npy (the bias alone, where the temperature is 1), or .npz, .json or .safetensors "
            "(arrays scale and bias).",
            says="where",
        ),
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
        A calibration of several networks, or one whose scores have a delta of their own: no layer does that.

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
    chosen = filled(ExportOptions, options)
    output, where = output_path(chosen["bias"]), "calibration"
    inputs: tuple[str, ...] = ()
    if not isinstance(calibration, Calibration):
        if not isinstance(calibration, (str, os.PathLike)):
            raise ArgumentError(
                where, f"a {type(calibration).__name__}", "expected a calibration, or the name of a file"
            )
        where = os.fspath(calibration)
        inputs = (where,)
        calibration = yield from Calibration.read(where)
    form = None if output is None else _form(output)
    if output is not None:
        yield from check_output(output, force=chosen["force"], inputs=inputs)
    elif chosen["force"]:
        raise UsageError("--force", "--force without --bias", "expected a file that it may replace")
    made = _layer(calibration, where, output)
    if output is not None:
        if form == "npy" and made.scale != 1.0:
            found = f"{output}, where the temperature is {made.temperature:g}"
            raise UsageError("--bias", found, "expected .npz, .json or .safetensors, which hold the scale, too")
        yield from write_bytes(output, encoded(made, str(form)))
    return replace(made, lines=made.torch()) if chosen["torch"] else made


def _form(output: str) -> str:
    suffix = os.path.splitext(output)[1].lower()
    if suffix not in FORMS:
        raise UsageError("--bias", output, f"expected a name that ends with {', '.join(FORMS)}")
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
        content = {key: value for key, value in made.to_dict().items() if key != "output"}
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
