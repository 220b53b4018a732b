"""Small files in the shapes in which people keep scores, and what must be read of each: `docs/dumps.md` has a table.

``python tests/dumps.py`` writes it.
"""

from __future__ import annotations

import json
import os
import pathlib
import pickle
from collections.abc import Callable
from dataclasses import dataclass, field

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

if __name__ == "__main__":
    import sys

    sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import torch_files

RNG = np.random.default_rng(7)
K, N = 4, 60
Z = RNG.normal(size=(N, K)).astype("f4") * 2
Y = RNG.choice(K, N, p=[0.5, 0.3, 0.1, 0.1])
Z[np.arange(N), Y] += 1
P = np.exp(Z.astype("f8")) / np.exp(Z.astype("f8")).sum(1, keepdims=True)
L = np.log(P)
V = 35
"""Rows of the first part, where there are two."""
NAMES = ["cat", "dog", "elk", "fox"]
COUNTS = [50, 30, 10, 10]
IMAGES = RNG.normal(size=(3, K, 6, 7)).astype("f4")
MASKS = RNG.integers(0, K, (3, 6, 7))
VOLUMES = [RNG.normal(size=(K, *shape)).astype("f4") for shape in ((3, 4, 5), (2, 4, 6))]
CASES = [RNG.integers(0, K, volume.shape[1:]).astype("u1") for volume in VOLUMES]
B1 = RNG.uniform(0.05, 0.95, N)
"""Probabilities of class 1."""
YB = (RNG.uniform(size=N) < B1).astype("i8")


def acc(scores, labels, axis=1):
    return float((np.argmax(scores, axis) == labels).mean())


@dataclass(frozen=True)
class Dump:
    """A file, or a folder, and what it holds.

    Attributes
    ----------
    name : str
        What is given to a command.
    says : str
        What it is.
    make : callable
        Writes it, in the current folder.
    n, k : int
    acc : float
        Of the plain argmax.
    kind : str
    args : tuple of str
        What must be said.
    counts : list of int or None
        Source counts that must be found.
    classes : list of str or None
    splits : dict of str to int
    """

    name: str
    says: str
    make: Callable[[], object]
    n: int = N
    k: int = K
    acc: float = field(default=acc(Z, Y))
    kind: str = "logits"
    args: tuple[str, ...] = ()
    counts: list[int] | None = None
    classes: list[str] | None = None
    splits: dict[str, int] = field(default_factory=dict)


def npz(name, **arrays):
    return lambda: np.savez(name, **arrays)


def h5(name, attrs=None, **arrays):
    def make():
        with h5py.File(name, "w") as file:
            for key, array in arrays.items():
                file[key.replace("__", "/")] = array
            for key, value in (attrs or {}).items():
                file.attrs[key] = value

    return make


def parquet(name, **columns):
    def make():
        os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
        pq.write_table(pa.table(columns), name)

    return make


def csv(name, header, *columns, sep=","):
    lines = [sep.join(header), *(sep.join(str(cell) for cell in row) for row in zip(*columns, strict=True))]
    return lambda: pathlib.Path(name).write_text("\n".join(lines) + "\n")


def pickled(name, value, protocol=4):
    return lambda: pathlib.Path(name).write_bytes(pickle.dumps(value, protocol))


def torch(name, value):
    return lambda: torch_files.save(value, name)


def npy(**arrays):
    return lambda: [np.save(f"{name}.npy", array) for name, array in arrays.items()]


def both(*makes):
    return lambda: [make() for make in makes]


def wide(stem, scores):
    return {f"{stem}_{k}": scores[:, k] for k in range(scores.shape[1])}


def lists(scores):
    return pa.array(scores.tolist(), pa.list_(pa.float32()))


def tensors(scores):
    return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(scores))


def nnunet():
    os.makedirs("pred", exist_ok=True)
    os.makedirs("labelsTs", exist_ok=True)
    for i, (volume, case) in enumerate(zip(VOLUMES, CASES, strict=True), 1):
        np.savez_compressed(f"pred/case_{i:03d}.npz", probabilities=softmax(volume).astype("f4"))
        pathlib.Path(f"pred/case_{i:03d}.pkl").write_bytes(pickle.dumps({"spacing": [1.0, 1.0, 1.0]}))
        nifti(case, f"labelsTs/case_{i:03d}.nii.gz")
    pathlib.Path("pred/dataset.json").write_text("{}")


def nifti(case, name):
    import nibabel

    nibabel.save(nibabel.Nifti1Image(np.ascontiguousarray(case.T), np.eye(4)), name)


def softmax(volume):
    e = np.exp(volume.astype("f8"))
    return e / e.sum(0)


BF16 = (Z.view("u4") >> 16).astype("u2")
ZB = (BF16.astype("u4") << 16).view("f4")
PARTS = {"splits": {"val": V, "test": N - V}}
VAL, TEST = (Z[:V], Y[:V]), (Z[V:], Y[V:])
IMAGE = {"n": 3, "acc": acc(IMAGES, MASKS)}
CASE_ACC = float(np.mean(np.concatenate([(v.argmax(0) == c).ravel() for v, c in zip(VOLUMES, CASES, strict=True)])))

DUMPS = [
    Dump("a.npz", "`np.savez(logits=, labels=)`", npz("a.npz", logits=Z, labels=Y)),
    Dump(
        "b.npz",
        "`np.savez_compressed`, `train_counts`",
        lambda: np.savez_compressed("b.npz", logits=Z, targets=Y, train_counts=COUNTS),
        counts=COUNTS,
    ),
    Dump("c.npz", "`y_prob`, `y_true`", npz("c.npz", y_prob=P, y_true=Y), kind="probs"),
    Dump("d.npz", "`probas`, `y`", npz("d.npz", probas=P, y=Y), kind="probs"),
    Dump("e.npz", "`log_probs`, `target`", npz("e.npz", log_probs=L, target=Y), kind="log_probs"),
    Dump("f.npz", "`outputs` that are logits, `gt`", npz("f.npz", outputs=Z, gt=Y)),
    Dump("g.npz", "`preds` that are probabilities, `labels`", npz("g.npz", preds=P, labels=Y), kind="probs"),
    Dump(
        "h.npz",
        "`predictions` of floats and `label_ids`, as trainers return them",
        npz("h.npz", predictions=Z, label_ids=Y),
    ),
    Dump(
        "i.npz",
        "`val_logits`, `val_labels`, `test_logits`, `test_labels`",
        npz("i.npz", val_logits=VAL[0], val_labels=VAL[1], test_logits=TEST[0], test_labels=TEST[1]),
        **PARTS,
    ),
    Dump(
        "j.npz",
        "`logits_val`, `y_val`, `logits_test`, `y_test`, one `class_names`",
        npz("j.npz", logits_val=VAL[0], y_val=VAL[1], logits_test=TEST[0], y_test=TEST[1], class_names=NAMES),
        classes=NAMES,
        **PARTS,
    ),
    Dump(
        "k.npz",
        "`probs_cal`, `labels_cal`, `probs_test`, `labels_test`",
        npz("k.npz", probs_cal=P[:V], labels_cal=Y[:V], probs_test=P[V:], labels_test=Y[V:]),
        kind="probs",
        splits={"cal": V, "test": N - V},
    ),
    Dump("l.npz", "`test_logits`, `test_labels` alone", npz("l.npz", test_logits=Z, test_labels=Y), splits={"test": N}),
    Dump(
        "m.npz",
        "an object array that nobody asked for",
        npz("m.npz", logits=Z, labels=Y, ids=np.array(["a", None] * (N // 2), object)),
    ),
    Dump(
        "n.npz",
        "one probability of each sample",
        npz("n.npz", prob=B1, y=YB),
        k=2,
        kind="probs",
        acc=float(((B1 > 0.5) == YB).mean()),
    ),
    Dump(
        "o.npz",
        "one logit of each sample, (N, 1)",
        npz("o.npz", logits=np.log(B1 / (1 - B1))[:, None], y=YB),
        k=2,
        acc=float(((B1 > 0.5) == YB).mean()),
    ),
    Dump("p.npz", "images (N, K, H, W), masks", npz("p.npz", logits=IMAGES, masks=MASKS), **IMAGE),
    Dump("q.npz", "images (N, H, W, K), masks", npz("q.npz", logits=np.moveaxis(IMAGES, 1, -1), masks=MASKS), **IMAGE),
    Dump("r.npz", "Fortran order", npz("r.npz", logits=np.asfortranarray(Z), labels=Y)),
    Dump(
        "s.npz",
        "two candidates, one named",
        npz("s.npz", logits_rgb=Z, logits_depth=Z * 2, labels=Y),
        args=("--logits-key", "logits_rgb"),
    ),
    Dump(
        "t.npz",
        "names of no table",
        npz("t.npz", net=Z, truth=Y),
        args=("--logits-key", "net", "--labels-key", "truth"),
    ),
    Dump("u_logits.npy", "npy, the labels in another", npy(u_logits=Z, u_labels=Y), args=("--labels", "u_labels.npy")),
    Dump(
        "v.npy",
        "npy, labels in a text file",
        both(npy(v=P), lambda: np.savetxt("v.txt", Y, "%d")),
        args=("--labels", "v.txt"),
        kind="probs",
    ),
    Dump(
        "w.npy",
        "npy, labels in a column of CSV",
        both(npy(w=Z), csv("w.csv", ["id", "label"], range(N), Y)),
        args=("--labels", "w.csv"),
    ),
    Dump("x.npy", "npy, labels in HDF5", both(npy(x=Z), h5("x.h5", a__y=Y)), args=("--labels", "x.h5::a/y")),
    Dump(
        "y.npy", "npy, labels in Parquet", both(npy(y=Z), parquet("y.parquet", label=Y)), args=("--labels", "y.parquet")
    ),
    Dump(
        "z.npy",
        "one volume, (K, Z, Y, X)",
        both(npy(z=VOLUMES[0]), npy(z_labels=CASES[0])),
        args=("--labels", "z_labels.npy"),
        n=1,
        acc=acc(VOLUMES[0], CASES[0], 0),
    ),
    Dump(
        "pred",
        "a folder of nnU-Net: `probabilities` (K, Z, Y, X) a case, labels in NIfTI",
        nnunet,
        args=("--labels", "labelsTs"),
        n=2,
        acc=CASE_ACC,
        kind="probs",
    ),
    Dump("a.h5", "the schema's own names", h5("a.h5", logits=Z, labels=Y)),
    Dump(
        "b.h5",
        "`targets`, counts as an attribute",
        h5("b.h5", {"train_counts": COUNTS}, logits=Z, targets=Y),
        counts=COUNTS,
    ),
    Dump("c.h5", "`keras_predictions`, `y`", h5("c.h5", keras_predictions=P, y=Y), kind="probs"),
    Dump(
        "d.h5",
        "`val_logits`, `val_labels`, `test_logits`, `test_labels`",
        h5("d.h5", val_logits=VAL[0], val_labels=VAL[1], test_logits=TEST[0], test_labels=TEST[1]),
        **PARTS,
    ),
    Dump("e.h5::val", "a group for each split", h5("e.h5", val__logits=VAL[0], val__labels=VAL[1]), n=V, acc=acc(*VAL)),
    Dump(
        "f.h5::cifar/net",
        "a group for each data set and model, `probas_cal`, `y_cal`, `probas_test`, `y_test`",
        h5(
            "f.h5",
            cifar__net__probas_cal=P[:V],
            cifar__net__y_cal=Y[:V],
            cifar__net__probas_test=P[V:],
            cifar__net__y_test=Y[V:],
        ),
        kind="probs",
        splits={"cal": V, "test": N - V},
    ),
    Dump("g.h5", "images, masks (N, 1, H, W)", h5("g.h5", logits=IMAGES, masks=MASKS[:, None]), **IMAGE),
    Dump("h.h5", "scores alone", both(h5("h.h5", logits=Z), npy(h_truth=Y)), args=("--labels", "h_truth.npy")),
    Dump("a.parquet", "columns `logits_0` ...", parquet("a.parquet", **wide("logits", Z), label=Y)),
    Dump("b.parquet", "columns `logit_0` ..., `target`", parquet("b.parquet", **wide("logit", Z), target=Y)),
    Dump("c.parquet", "columns `p_0` ..., `y_true`", parquet("c.parquet", **wide("p", P), y_true=Y), kind="probs"),
    Dump("d.parquet", "a list column `logits`", parquet("d.parquet", logits=lists(Z), labels=Y)),
    Dump(
        "e.parquet",
        "a column of fixed-size lists `probs`",
        parquet("e.parquet", probs=pa.FixedSizeListArray.from_arrays(pa.array(P.ravel()), K), y=Y),
        kind="probs",
    ),
    Dump("f.parquet", "a column of tensors of shape (K,)", parquet("f.parquet", logits=tensors(Z), label=Y)),
    Dump(
        "g.parquet",
        "a column of tensors of shape (K, H, W) and one of (H, W)",
        parquet("g.parquet", logits=tensors(IMAGES), labels=tensors(MASKS)),
        **IMAGE,
    ),
    Dump(
        "h.parquet",
        "columns named by the classes, labels that are names",
        parquet("h.parquet", **{name: P[:, k] for k, name in enumerate(NAMES)}, label=[NAMES[k] for k in Y]),
        kind="probs",
        classes=NAMES,
    ),
    Dump(
        "table",
        "a folder of parts, `split=val/`, `split=test/`",
        both(
            parquet("table/split=val/part-0.parquet", **wide("logits", VAL[0]), label=VAL[1]),
            parquet("table/split=test/part-0.parquet", **wide("logits", TEST[0]), label=TEST[1]),
        ),
        **PARTS,
    ),
    Dump(
        "a.csv",
        "columns `logit_0` ..., `label`",
        csv("a.csv", [*wide("logit", Z), "label"], *wide("logit", Z).values(), Y),
    ),
    Dump(
        "b.csv",
        "columns `prob_cat` ..., integer labels",
        csv("b.csv", ["id", *(f"prob_{name}" for name in NAMES), "target"], range(N), *P.T, Y),
        kind="probs",
        classes=NAMES,
    ),
    Dump(
        "c.csv",
        "an index without a name, columns of the classes' names, text labels",
        csv("c.csv", ["", *NAMES, "label"], range(N), *P.T, [NAMES[k] for k in Y]),
        kind="probs",
        classes=NAMES,
    ),
    Dump(
        "d.csv",
        "logits in columns that are listed",
        csv("d.csv", [*NAMES, "loss", "label"], *Z.T, P[:, 0], Y),
        args=("--logits-key", "cat,dog,elk,fox"),
        classes=NAMES,
    ),
    Dump(
        "e.csv",
        "one probability of each line",
        csv("e.csv", ["y_true", "y_score"], YB, B1),
        k=2,
        kind="probs",
        acc=float(((B1 > 0.5) == YB).mean()),
    ),
    Dump(
        "a.tsv",
        "tabs, `logits_0` ..., `split`",
        csv("a.tsv", [*wide("logits", Z), "label", "split"], *Z.T, Y, ["val"] * V + ["test"] * (N - V), sep="\t"),
        **PARTS,
    ),
    Dump("a.safetensors", "`logits`, `labels`", lambda: safetensors("a.safetensors", logits=Z, labels=Y)),
    Dump(
        "b.safetensors",
        "bfloat16",
        lambda: safetensors("b.safetensors", bf16=("logits",), logits=BF16, labels=Y),
        acc=acc(ZB, Y),
    ),
    Dump(
        "a.pt",
        "`torch.save({'logits': ..., 'labels': ...})`",
        torch("a.pt", {"logits": torch_files.Tensor(Z), "labels": torch_files.Tensor(Y)}),
    ),
    Dump("b.pt", "a tuple (outputs, targets)", torch("b.pt", (torch_files.Tensor(Z), torch_files.Tensor(Y)))),
    Dump(
        "c.pt",
        "bfloat16, a view that is transposed",
        torch(
            "c.pt",
            {
                "logits": torch_files.Tensor(np.ascontiguousarray(BF16.T), (N, K), (1, N)),
                "labels": torch_files.Tensor(Y),
            },
        ),
        acc=acc(ZB, Y),
    ),
    Dump(
        "d.pt",
        "one dict for each split",
        torch(
            "d.pt",
            {
                split: {"logits": torch_files.Tensor(z), "labels": torch_files.Tensor(y)}
                for split, (z, y) in {"val": VAL, "test": TEST}.items()
            },
        ),
        **PARTS,
    ),
    Dump(
        "e.pt",
        "a parameter, which requires grad",
        torch("e.pt", {"logits": torch_files.Tensor(Z, parameter=True), "y": torch_files.Tensor(Y)}),
    ),
    Dump(
        "f.pth",
        "saved before torch 1.6",
        lambda: torch_files.save_legacy({"logits": torch_files.Tensor(Z), "labels": torch_files.Tensor(Y)}, "f.pth"),
    ),
    Dump(
        "g.pt",
        "one tensor, labels in another",
        both(torch("g.pt", torch_files.Tensor(Z)), torch("g_labels.pt", torch_files.Tensor(Y))),
        args=("--labels", "g_labels.pt", "--logits-key", "g"),
    ),
    Dump(
        "a.p",
        "two pairs, ((logits, labels), (logits, labels)), as calibration studies publish them",
        pickled("a.p", (VAL, (TEST[0], TEST[1][:, None])), 3),
        **PARTS,
    ),
    Dump("b.pkl", "a dict of arrays", pickled("b.pkl", {"y_prob": P, "y_true": Y}), kind="probs"),
    Dump("c.pkl", "a dict of arrays and lists, protocol 2", pickled("c.pkl", {"logits": Z, "labels": Y.tolist()}, 2)),
    Dump(
        "d.pkl",
        "arrays of protocol 5, Fortran order",
        pickled("d.pkl", {"logits": np.asfortranarray(Z), "labels": Y}, 5),
    ),
    Dump(
        "e.pkl",
        "dicts in a dict, one for each split",
        pickled("e.pkl", {"val": {"logits": VAL[0], "labels": VAL[1]}, "test": {"logits": TEST[0], "labels": TEST[1]}}),
        **PARTS,
    ),
    Dump("f.pkl", "a pair (scores, labels)", pickled("f.pkl", [P, Y]), kind="probs"),
    Dump(
        "rank*.npz",
        "one file for each rank",
        both(npz("rank0.npz", logits=VAL[0], labels=VAL[1]), npz("rank1.npz", logits=TEST[0], labels=TEST[1])),
    ),
]


def safetensors(name, bf16=(), **arrays):
    kinds = {"float32": "F32", "int64": "I64", "uint16": "BF16"}
    header, data = {}, b""
    for key, array in arrays.items():
        raw = np.ascontiguousarray(array).tobytes()
        header[key] = {"dtype": kinds[array.dtype.name], "shape": list(array.shape),
                       "data_offsets": [len(data), len(data) + len(raw)]}  # fmt: skip
        data += raw
    text = json.dumps(header).encode()
    pathlib.Path(name).write_bytes(len(text).to_bytes(8, "little") + text + data)


def page() -> str:
    """The table of ``docs/dumps.md``."""
    rows = []
    for dump in DUMPS:
        said = " ".join(f"`{arg}`" if " " not in arg else f"`'{arg}'`" for arg in dump.args).replace("` `", " ")
        found = [f"{dump.n:,} x {dump.k}", dump.kind]
        found += [f"splits {', '.join(f'{name} ({n})' for name, n in dump.splits.items())}"] if dump.splits else []
        found += ["training counts"] if dump.counts else []
        found += ["names of classes"] if dump.classes else []
        rows.append(f"| `{dump.name}` | {dump.says} | {said} | {', '.join(found)} |")
    return "\n".join(["| given | what it is | what must be said | what is read |", "| --- | --- | --- | --- |", *rows])


if __name__ == "__main__":
    path = pathlib.Path(__file__).resolve().parent.parent / "docs" / "dumps.md"
    text = path.read_text() if path.exists() else "<!-- dumps -->\n<!-- end -->\n"
    head, _, rest = text.partition("<!-- dumps -->")
    path.write_text(f"{head}<!-- dumps -->\n\n{page()}\n\n<!-- end -->{rest.partition('<!-- end -->')[2]}")
