"""Every class score as a line in lambda: the tables that all kernels on lines share.

score_k(lambda) = delta * z_k + lambda * s_k,     s_k = log P_t(k) - log P_s(k)          (Eq. 7)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from unoic_cli.kernels.constants import LANES, SEGMENT

COPIES = 4
"""Successive units are counted in different copies of a table: adding to one place again and again would stall."""
ROUNDS = 24
"""Steps without a change of winner after which `unoic_cli.kernels.columns.walk_columns` leaves a unit to float64."""
EVENTS = 1024
"""Changes that are listed before they are counted: places that are not in the cache are then waited for together."""
TILE = 4096
"""Scores of a tile."""
JOINT_CLASSES = 64
"""Up to so many classes, pairs of label and prediction are counted."""


class Lines(NamedTuple):
    """Slopes of K classes and a lattice of G lambdas, laid out for the kernels.

    Attributes
    ----------
    n_classes, n_vectors : int
        K, and the number of 16-lane vectors that hold K scores.
    slope : (K,) float64
        s_k; 0 for a masked class.
    slope32 : (16 * n_vectors,) float32
        The same, padded with 0.
    bias0, bias1 : (16 * n_vectors,) float32
        lambda * s at the first lattice point, and half a step beyond the last (so that rounding there
        cannot touch a result); -inf for masked classes and padding.
    valid : (n_vectors,) int64
        Bit i of word v is set when class 16 v + i exists and is not masked.
    lams : (G,) float64
        The lattice, ascending and evenly spaced.
    inverse_step, inverse_span : float
        1 / step, and 1 / (the lambda of `bias1` - that of `bias0`).
    slack : float
        Uncertainty of a lambda that is compared with the lattice: far above float64's, far below a usual step.
    reach : float
        The largest |lambda * s|.
    steepest : float
        The largest |s|.
    """

    n_classes: int
    n_vectors: int
    slope: Any
    slope32: Any
    bias0: Any
    bias1: Any
    valid: Any
    lams: Any
    inverse_step: float
    inverse_span: float
    slack: float
    reach: float
    steepest: float


def make_lines(slopes: Any, masked: Any, lams: Any) -> Lines:
    """Lay out the tables of K slopes over a lattice.

    Parameters
    ----------
    slopes : (K,) float64
        s_k; what stands at masked classes is not looked at.
    masked : (K,) bool
        Classes that are never predicted.
    lams : (G,) float64
        Ascending, evenly spaced; G >= 1.

    Examples
    --------
    >>> import numpy as np
    >>> lines = make_lines(np.array([0.0, 1.0]), np.array([False, False]), np.array([0.0, 0.5, 1.0]))
    >>> lines.bias1[:2].tolist(), int(lines.valid[0])
    ([0.0, 1.25], 3)
    """
    masked = np.asarray(masked, dtype=bool)
    lams = np.ascontiguousarray(lams, dtype=np.float64)
    slope = np.where(masked, 0.0, np.asarray(slopes, dtype=np.float64))
    n_classes = slope.size
    n_vectors = -(-n_classes // LANES)
    step = float(lams[1] - lams[0]) if lams.size > 1 else 1.0
    end = float(lams[-1]) + step / 2
    allowed = np.zeros(n_vectors * LANES, dtype=bool)
    allowed[:n_classes] = ~masked
    padded = np.zeros(n_vectors * LANES)
    padded[:n_classes] = slope
    words = (allowed.reshape(n_vectors, LANES) * (1 << np.arange(LANES, dtype=np.int64))).sum(axis=1)
    steepest = float(np.abs(slope).max())
    return Lines(
        n_classes=n_classes,
        n_vectors=n_vectors,
        slope=slope,
        slope32=padded.astype(np.float32),
        bias0=np.where(allowed, lams[0] * padded, -np.inf).astype(np.float32),
        bias1=np.where(allowed, end * padded, -np.inf).astype(np.float32),
        valid=words.astype(np.int64),
        lams=lams,
        inverse_step=(lams.size - 1) / float(lams[-1] - lams[0]) if lams.size > 1 else 1.0,
        inverse_span=1.0 / (end - float(lams[0])),
        slack=1e-9 * (1.0 + max(abs(float(lams[0])), abs(end))),
        reach=steepest * max(abs(float(lams[0])), abs(end)),
        steepest=steepest,
    )


class Workspace(NamedTuple):
    """One thread's scratch: kernels allocate nothing themselves.

    The tile holds some rows or, class-major, some units and stays in the first-level cache; ``words`` is its memory.
    ``joint`` is a table of labels by predictions in `COPIES` copies, with a place more for what is not counted; zeros
    between calls.
    """

    tile: Any
    words: Any
    row: Any
    todo: Any
    starts: Any
    ends: Any
    best0: Any
    best1: Any
    marks: Any
    labels: Any
    slots: Any
    old: Any
    new: Any
    who: Any
    limits: Any
    joint: Any
    peaks: Any
    n_rows: int
    n_peaks: int
    segments: Any
    kinks: Any
    events: Any
    group: Any
    whole: Any
    real: Any
    units: Any
    tables: Any
    classes: Any
    winners: Any
    points: Any
    scores: Any
    slopes: Any


def make_workspace(n_classes: int) -> Workspace:
    """Scratch for blocks of K classes, tiles on cache-line boundaries so that no vector straddles two lines."""
    width = -(-n_classes // LANES) * LANES
    n_rows = max(TILE // width, 1)
    size = max(n_rows * width, (n_classes + 1) * LANES)
    memory = np.zeros(size + LANES, dtype=np.float32)
    shift = -memory.ctypes.data // memory.itemsize % LANES
    n_segments = -(-width // (LANES * SEGMENT))
    units = size // min(width, n_classes) + LANES
    return Workspace(
        tile=memory[shift : shift + size],
        words=memory[shift : shift + size].view(np.uint16),
        row=np.zeros(width, dtype=np.float32),
        peaks=np.zeros(2 * LANES * n_segments * n_rows, dtype=np.float32),
        n_rows=n_rows,
        n_peaks=2 * LANES * n_segments,
        segments=np.zeros(n_segments, dtype=np.int32),
        kinks=np.zeros(4 * n_rows, dtype=np.float64),
        events=np.zeros(EVENTS + 2 * n_classes + 1, dtype=np.int64),
        todo=np.zeros(units, dtype=np.int32),
        **{name: np.zeros(units, dtype=np.int32) for name in ("starts", "ends", "marks", "labels", "slots")},
        **{name: np.zeros(units, dtype=np.int32) for name in ("old", "new", "who")},
        best0=np.zeros(units, dtype=np.float32),
        best1=np.zeros(units, dtype=np.float32),
        limits=np.zeros(LANES, dtype=np.float32),
        group=np.zeros(n_classes * LANES, dtype=np.float32),
        units=np.zeros(LANES, dtype=np.int64),
        tables=np.zeros(LANES, dtype=np.int64),
        whole=np.zeros(7 * LANES, dtype=np.int32),
        real=np.zeros(6 * LANES, dtype=np.float32),
        joint=np.zeros(COPIES * (n_classes + 1) ** 2 if n_classes <= JOINT_CLASSES else 0, dtype=np.int32),
        classes=np.zeros(n_classes + 1, dtype=np.int64),  # a candidate is written before it is known to be one
        winners=np.zeros(n_classes, dtype=np.int64),
        points=np.zeros(n_classes, dtype=np.int64),
        scores=np.zeros(n_classes, dtype=np.float64),
        slopes=np.zeros(n_classes, dtype=np.float64),
    )


def make_point(slopes: Any, masked: Any, lam: float) -> Lines:
    """The tables for one lambda: both ends are that lambda."""
    lines = make_lines(slopes, masked, np.array([lam]))
    return lines._replace(bias1=lines.bias0, reach=lines.steepest * abs(lam))


def add_up(counts: Any) -> Any:
    """Changes (F, G + 4, K, 2) to (hits, predicted) at each lattice point, both (F, G, K) int64.

    Examples
    --------
    >>> import numpy as np
    >>> changes = np.zeros((1, 6, 2, 2), dtype=np.int32)
    >>> changes[0, 0, 0, 1], changes[0, 4, 0, 1], changes[0, 4, 1, 0] = 1, -1, 1
    >>> hits, predicted = add_up(changes)
    >>> hits.tolist(), predicted.tolist()
    ([[[1, 0], [0, 0]]], [[[1, 0], [0, 1]]])
    """
    hits, predicted = (counts[:, COPIES - 1 : -1, :, own].astype(np.int64) for own in (1, 0))
    for own, number in ((1, hits), (0, predicted)):
        number[:, 0] += counts[:, : COPIES - 1, :, own].sum(axis=1, dtype=np.int64)
        np.cumsum(number, axis=1, out=number)
    predicted += hits
    return hits, predicted
