"""Synthetic logits for the benchmarks, made on the fly: confident, imbalanced, and saved without a copy in memory."""

from __future__ import annotations

import h5py
import numpy as np


def frequencies(n_classes: int, ratio: float = 1.3e4) -> np.ndarray:
    """Class frequencies that fall geometrically from the largest to the smallest by `ratio`."""
    weights = np.geomspace(1.0, 1.0 / ratio, n_classes)
    return weights / weights.sum()


def make(
    n: int, n_classes: int, dtype: str = "float16", seed: int = 0, ratio: float = 1.3e4, unsure: float = 0.06
) -> tuple[np.ndarray, np.ndarray]:
    """Logits (n, K) of a confident network on imbalanced data, and labels (n,).

    94 % of units favour their label by 14, the `unsure` by 3; noise of standard deviation 1.5; the prior leaks in.
    """
    rng = np.random.default_rng(seed)
    f = frequencies(n_classes, ratio)
    labels = rng.choice(n_classes, size=n, p=f).astype(np.uint8 if n_classes < 256 else np.int32)
    logits = rng.standard_normal((n, n_classes), dtype=np.float32) * 1.5 + (np.log(f) * 0.6).astype(np.float32)
    logits[np.arange(n), labels] += np.where(rng.random(n) < unsure, 3, 14).astype(np.float32)
    return logits.astype(dtype), labels


def save(
    path: str, n: int, n_classes: int, dtype: str = "float16", image: int = 0, repeat: bool = False, block: int = 0
) -> None:
    """Write n units as a contiguous HDF5 file, block by block; `image` > 0 makes (N, K, image, image) planes.

    `repeat` writes the same block again and again, for files that only have to be large.
    """
    block = block or (min(n, 1 << 20) if not image else image * image * max(1, (1 << 18) // (image * image)))
    if n % block:
        raise ValueError(f"n must be a multiple of {block}")
    pixels = image * image
    shape = (n // pixels, n_classes, image, image) if image else (n, n_classes)
    with h5py.File(path, "w") as file:
        scores = file.create_dataset("logits", shape, dtype)
        labels = file.create_dataset(
            "labels", (n // pixels, image, image) if image else (n,), "uint8" if n_classes < 256 else "int32"
        )
        file["source_prior"] = frequencies(n_classes)
        made = None
        for i in range(n // block):
            if made is None or not repeat:
                made = make(block, n_classes, dtype, seed=i)
            z, y = made
            if image:
                z = z.reshape(-1, pixels, n_classes).transpose(0, 2, 1).reshape(-1, n_classes, image, image)
                y = y.reshape(-1, image, image)
            step = len(z)
            scores[i * step : (i + 1) * step] = z
            labels[i * step : (i + 1) * step] = y
