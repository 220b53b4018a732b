"""Remake this folder: logits of a small network trained on a long-tailed cut of scikit-learn's handwritten digits.

Needs scikit-learn, numpy, h5py and pyarrow. Writes val and test, each as HDF5 and as Parquet, beside this file.
"""

from __future__ import annotations

import json
import os
import warnings
from pathlib import Path
from typing import Any

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # one thread: the order of every sum is fixed
os.environ.setdefault("OMP_NUM_THREADS", "1")

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.exceptions import ConvergenceWarning
from sklearn.neural_network import MLPClassifier

HERE = Path(__file__).parent
SEED = 0
HELD_OUT = 35
"""Images per class in val, and again in test."""
IMBALANCE = 100
N_CLASSES = 10
CLASS_NAMES = [str(digit) for digit in range(N_CLASSES)]


def split(labels: NDArray[Any]) -> dict[str, NDArray[np.int64]]:
    """Row numbers of train (long-tailed), val and test (balanced)."""
    rng = np.random.default_rng(SEED)
    rows = [rng.permutation(np.flatnonzero(labels == k)) for k in range(N_CLASSES)]
    left = [len(r) - 2 * HELD_OUT for r in rows]
    order = sorted(range(N_CLASSES), key=lambda k: -left[k])  # the digit with most images is the head
    train = []
    for place, k in enumerate(order):
        keep = round(left[order[0]] * IMBALANCE ** (-place / (N_CLASSES - 1)))
        train.append(rows[k][2 * HELD_OUT :][:keep])
    return {
        "train": np.concatenate(train),
        "val": np.sort(np.concatenate([r[:HELD_OUT] for r in rows])),
        "test": np.sort(np.concatenate([r[HELD_OUT : 2 * HELD_OUT] for r in rows])),
    }


def network_logits(network: MLPClassifier, pixels: NDArray[np.float64]) -> NDArray[np.float32]:
    """Output layer before the softmax, (N, K)."""
    hidden = np.maximum(pixels @ network.coefs_[0] + network.intercepts_[0], 0)
    return np.asarray(hidden @ network.coefs_[1] + network.intercepts_[1], np.float32)


def write_hdf5(path: Path, columns: dict[str, NDArray[Any]], source_counts: list[int]) -> None:
    """Root datasets logits, labels, sample_id (per row), source_counts and class_names (per class)."""
    with h5py.File(path, "w") as f:
        f.attrs["unoic_schema"] = 1
        for name, values in columns.items():
            f[name] = values
        f["source_counts"] = np.array(source_counts, np.int64)
        f.create_dataset("class_names", data=CLASS_NAMES, dtype=h5py.string_dtype())


def write_parquet(path: Path, columns: dict[str, NDArray[Any]], source_counts: list[int]) -> None:
    """Columns logits (a fixed-size list), label and sample_id; what is per class goes to the metadata as JSON."""
    logits = pa.FixedSizeListArray.from_arrays(pa.array(columns["logits"].ravel()), N_CLASSES)
    table = pa.table({"logits": logits, "label": columns["labels"], "sample_id": columns["sample_id"]})
    metadata = {"unoic.source_counts": json.dumps(source_counts), "unoic.class_names": json.dumps(CLASS_NAMES)}
    pq.write_table(
        table.replace_schema_metadata(metadata),
        path,
        use_dictionary=False,
        write_statistics=False,
        write_page_checksum=True,
    )


def main() -> None:
    """Split, train with plain cross entropy, and save both held-out sets."""
    digits = load_digits()
    pixels, labels = digits.data / 16, digits.target
    rows = split(labels)
    network = MLPClassifier((32,), batch_size=32, max_iter=50, n_iter_no_change=50, tol=0, random_state=SEED)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # 50 epochs are meant
        network.fit(pixels[rows["train"]], labels[rows["train"]])
    source_counts = np.bincount(labels[rows["train"]], minlength=N_CLASSES).tolist()
    print("training images per class:", dict(zip(CLASS_NAMES, source_counts, strict=True)))
    for name in ("val", "test"):
        columns = {
            "logits": network_logits(network, pixels[rows[name]]),
            "labels": labels[rows[name]].astype(np.int32),
            "sample_id": rows[name].astype(np.int32),
        }
        write_hdf5(HERE / f"{name}.h5", columns, source_counts)
        write_parquet(HERE / f"{name}.parquet", columns, source_counts)


if __name__ == "__main__":
    main()
