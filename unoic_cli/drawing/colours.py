"""Colours that are told apart: a palette for any number of classes, and that of Cityscapes."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

IGNORED = (201, 201, 201)
"""Pixels without a label."""
FIRST = (
    (0, 114, 178), (230, 159, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233), (213, 94, 0), (240, 228, 66),
    (0, 0, 0),
)  # fmt: skip
"""The first classes: the qualitative palette of M. Okabe and K. Ito ("Color Universal Design", 2008)."""
MOST = 256
"""Colours that differ; more classes begin again."""
_STEPS = 12
_WEIGHTS = np.array([1.0, 1.8, 1.8])
"""Of three kinds of eyes: half as much difference must do for those that lack cones, as fewer colours are left."""
# as eyes without red, and without green, cones see linear RGB: Machado, Oliveira and Fernandes (2009), severity 1
_PROTAN = np.array([[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]])
_DEUTAN = np.array([[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]])
# linear RGB to Oklab: B. Ottosson (2020)
_CONES = np.array(
    [[0.4122214708, 0.5363325363, 0.0514459929], [0.2119034982, 0.6806995451, 0.1073969566],
     [0.0883024619, 0.2817188376, 0.6299787005]]
)  # fmt: skip
_LAB = np.array(
    [[0.2104542553, 0.7936177850, -0.0040720468], [1.9779984951, -2.4285922050, 0.4505937099],
     [0.0259040371, 0.7827717662, -0.8086757660]]
)  # fmt: skip

# RGB of the 19 classes of the Cityscapes benchmark that are evaluated, in the order of their trainIds, as published in
# labels.py of the cityscapesScripts (M. Cordts et al., "The Cityscapes Dataset", CVPR 2016)
CITYSCAPES = {
    "road": (128, 64, 128),
    "sidewalk": (244, 35, 232),
    "building": (70, 70, 70),
    "wall": (102, 102, 156),
    "fence": (190, 153, 153),
    "pole": (153, 153, 153),
    "traffic light": (250, 170, 30),
    "traffic sign": (220, 220, 0),
    "vegetation": (107, 142, 35),
    "terrain": (152, 251, 152),
    "sky": (70, 130, 180),
    "person": (220, 20, 60),
    "rider": (255, 0, 0),
    "car": (0, 0, 142),
    "truck": (0, 0, 70),
    "bus": (0, 60, 100),
    "train": (0, 80, 100),
    "motorcycle": (0, 0, 230),
    "bicycle": (119, 11, 32),
}
ALIASES = {
    "bike": "bicycle",
    "cyclist": "rider",
    "light": "traffic light",
    "motorbike": "motorcycle",
    "pavement": "sidewalk",
    "pedestrian": "person",
    "sign": "traffic sign",
    "street": "road",
    "trafficlight": "traffic light",
    "trafficsign": "traffic sign",
    "tree": "vegetation",
}
"""What other data sets call classes of Cityscapes."""


def palette(n_classes: int) -> NDArray[np.uint8]:
    """Colours of K classes, (K, 3): the same for a class whatever K is.

    After the first eight, each is the one farthest from all before it (in Oklab), also for eyes that lack the red or
    the green cones.

    Examples
    --------
    >>> palette(3).tolist()
    [[0, 114, 178], [230, 159, 0], [0, 158, 115]]
    >>> len(np.unique(palette(200), axis=0))
    200
    """
    known = _spread(min(MOST, max(n_classes, 32)))
    return known[np.arange(n_classes) % len(known)]


@functools.cache
def _spread(n: int) -> NDArray[np.uint8]:
    """The first n colours, each as far as can be from those before it, from white, and from `IGNORED`."""
    levels = np.rint(np.linspace(0, 255, _STEPS)).astype(np.uint8)
    candidates = np.stack(np.meshgrid(levels, levels, levels, indexing="ij"), axis=-1).reshape(-1, 3)
    chosen = [np.array(one, dtype=np.uint8) for one in FIRST[:n]]
    seen, taken = _seen(candidates), _seen(np.array([*FIRST, IGNORED, (255, 255, 255)], dtype=np.uint8))
    nearest = np.min([_apart(seen, taken[:, i]) for i in range(taken.shape[1])], axis=0)
    while len(chosen) < n:
        place = int(np.argmax(np.round(nearest, 9)))  # rounded: processors differ in last digits
        chosen.append(candidates[place])
        nearest = np.minimum(nearest, _apart(seen, seen[:, place]))
    return np.stack(chosen)


def _seen(colours: NDArray[np.uint8]) -> NDArray[np.float64]:
    """Colours as three kinds of eyes see them, (3, n, 3) in Oklab."""
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    kinds = [linear, *(np.clip(linear @ lack.T, 0, 1) for lack in (_PROTAN, _DEUTAN))]
    found = np.stack([np.cbrt(one @ _CONES.T) @ _LAB.T for one in kinds])
    toe = (1.206 / 1.03) * found[..., 0] - 0.206  # dark colours are less unlike than Oklab's lightness says
    found[..., 0] = (toe + np.sqrt(toe**2 + 4 * 0.03 * (1.206 / 1.03) * found[..., 0])) / 2
    return found


def _apart(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far colours are from one, (n,): for the eyes that see the least difference, those of most people first."""
    distances = np.sqrt(((ours - theirs[:, None]) ** 2).sum(axis=2)) * _WEIGHTS[:, None]
    least: NDArray[np.float64] = distances.min(axis=0)
    return least
