"""Recipes of docs/training.md, each run as the script that it is, where its framework is installed."""

from __future__ import annotations

import importlib.util
import os
import pathlib
import re
import shutil
import subprocess
import sys

import h5py
import numpy as np
import pytest

import unoic_cli

ROOT = pathlib.Path(__file__).resolve().parents[1]
PAGE = "docs/training.md"
FRAMEWORKS = ("torch", "lightning", "keras", "transformers", "sklearn")
"""Of recipes that are not run with the rest of the page."""
MORE = {"transformers": ("torch", "accelerate"), "lightning": ("torch",)}
"""What else a recipe of one needs."""

DATA = """
import numpy as np
rng = np.random.default_rng(0)
train_counts = np.array([500, 300, 200, 100, 80, 60, 40, 30, 20, 10])
labels = rng.choice(10, size=300, p=train_counts / train_counts.sum())
inputs = (rng.normal(size=(300, 16)) + 2 * np.eye(16)[labels]).astype("float32")
labels[7] = -100
"""
NETWORK = """
import torch
torch.manual_seed(0)
class Network(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(16, 10)
    def forward(self, x, labels=None):
        z = self.layer(x)
        if labels is None:
            return z
        return {"loss": torch.nn.functional.cross_entropy(z, labels, ignore_index=-100), "logits": z}
model = Network()
with torch.no_grad():
    model.layer.weight.copy_(torch.eye(10, 16) * 2)
    model.layer.bias.copy_(torch.log(torch.tensor(train_counts / train_counts.sum())))
    logits = model(torch.from_numpy(inputs)).numpy()
np.savez("right.npz", logits=logits, labels=labels, source_counts=train_counts)
"""
BEFORE = {
    "torch": DATA + NETWORK + """
val_loader = [(torch.from_numpy(inputs[i : i + 64]), torch.from_numpy(labels[i : i + 64])) for i in range(0, 300, 64)]
""",
    "torch.distributed": DATA + NETWORK + """
val_set = torch.utils.data.TensorDataset(torch.from_numpy(inputs), torch.from_numpy(labels), torch.arange(300))
""",
    "lightning": "import warnings\nwarnings.simplefilter('ignore')\n" + DATA + NETWORK,
    "keras": DATA,
    "transformers": DATA + NETWORK + """
val_set = [{"x": torch.from_numpy(x), "labels": torch.tensor(y)} for x, y in zip(inputs, labels)]
""",
    "sklearn": DATA + """
labels[7] = 0
train_features, train_labels, val_features, val_labels = inputs[:200], labels[:200], inputs[200:], labels[200:]
""",
}  # fmt: skip
"""What a recipe takes for granted."""
AFTER = {
    "lightning": """
import lightning.pytorch as pl
class Module(pl.LightningModule):
    def __init__(self):
        super().__init__()
        self.network = model
    def validation_step(self, batch, batch_idx):
        return {"logits": self.network(batch[0])}
pieces = torch.utils.data.TensorDataset(torch.from_numpy(inputs), torch.from_numpy(labels))
callback = RebalancedAccuracy(10, train_counts)
trainer = pl.Trainer(callbacks=[callback], logger=False, enable_progress_bar=False, enable_checkpointing=False,
                     accelerator="cpu", enable_model_summary=False)
for _ in range(2):
    (logged,) = trainer.validate(Module(), torch.utils.data.DataLoader(pieces, batch_size=64), verbose=False)
print(logged["lambda"], logged["val_macc_rebalanced"])
""",
    "keras": """
model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(10, activation="softmax")])
model.compile("sgd", "sparse_categorical_crossentropy")
truth = np.where(labels < 0, 0, labels)
batches = [(inputs[i : i + 64], labels[i : i + 64]) for i in range(0, 300, 64)]
history = model.fit(inputs, truth, epochs=2, verbose=0, callbacks=[RebalancedAccuracy(batches, 10, train_counts)])
np.savez("right.npz", probs=np.concatenate([model.predict_on_batch(x) for x, _ in batches]), labels=labels,
         source_counts=train_counts)
print(history.history["lambda"][-1], history.history["val_macc_rebalanced"][-1])
""",
}
"""What uses a callback."""


def recipes():
    """Python blocks of the page that need a framework, each with its name."""
    text = (ROOT / PAGE).read_text(encoding="utf-8")
    for block in re.findall(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        needed = framework(block)
        if needed is not None:
            yield needed, block


def framework(block):
    """What a block needs; the last of those that it imports, as others are made of torch."""
    found = [name for name in FRAMEWORKS if re.search(rf"^(import|from) {name}\b", block, re.MULTILINE)]
    return "torch.distributed" if "torch.distributed" in block else found[-1] if found else None


def need(name):
    """Skip what needs a framework that is not there."""
    for one in (name.partition(".")[0], *MORE.get(name, ())):
        if importlib.util.find_spec(one) is None:
            pytest.skip(f"pip install {'scikit-learn' if one == 'sklearn' else one}")


def ran(folder, script, *how):
    """What a script prints, run as it stands in a process of its own."""
    (folder / "recipe.py").write_text(script)
    environment = {
        **os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": os.environ.get("KERAS_BACKEND", backend()),
        "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1",
    }  # fmt: skip
    command = [sys.executable, *how, "recipe.py"]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    return done.stdout


def backend():
    """The first backend of keras that is installed."""
    known = (name for name in ("tensorflow", "torch", "jax") if importlib.util.find_spec(name) is not None)
    return next(known, "tensorflow")


RECIPES = list(recipes())


@pytest.mark.parametrize("name, block", RECIPES, ids=[f"{name}-{i}" for i, (name, _) in enumerate(RECIPES)])
def test_a_recipe_runs(name, block, tmp_path):
    """As a script of its own, on made-up data; it finds what the command finds in the logits."""
    need(name)
    how = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", str(20000 + os.getpid() % 20000))
    script = BEFORE[name] + block + AFTER.get(name, "")
    said = ran(tmp_path, script, *(how if name == "torch.distributed" else ()))
    if name == "sklearn":
        assert len(re.findall(r"\d+", said)) == 100
        return
    right = unoic_cli.search_lambda(str(tmp_path / "right.npz"))
    if name == "torch":
        assert float(said) == right.lam
        found = unoic_cli.evaluate(str(tmp_path / "torch.h5"), lam=1.0)
        assert found.overall.n == 299 and found.overall.n_ignored == 1
    elif name == "torch.distributed":
        lams = {line.split()[1] for line in said.splitlines()}
        assert len(said.splitlines()) == 2 and len(lams) == 1
        ranks = [str(tmp_path / f"val.{rank}.h5") for rank in range(2)]
        states = [str(tmp_path / f"rank{rank}.unoic") for rank in range(2)]
        read, (_, counted) = unoic_cli.search_lambda(str(tmp_path / "val.*.h5")), unoic_cli.report_states(states)
        assert [pathlib.Path(one).name for one in read.details["files"]] == ["val.0.h5", "val.1.h5"]
        assert read.n == counted.n == 299 and counted.lam == float(lams.pop()) == right.lam
        assert counted.best == right.best and counted.choice == right.choice
        assert all(h5py.File(one)["sample_id"].shape == (150,) for one in ranks)
    elif "predict(" in block:
        assert unoic_cli.search_lambda(str(tmp_path / "predicted.npz")).to_dict()["curve"] == right.to_dict()["curve"]
    else:
        numbers = [float(one) for one in re.findall(r"[\d.]+(?:e-?\d+)?", said.split("lambda")[-1])]
        assert right.lam == pytest.approx(numbers[0], abs=1e-6)
        if name != "transformers":
            assert right.best["macc"] == pytest.approx(numbers[1], abs=1e-6)


TENSORS = {
    "torch": """
import torch
scores = torch.tensor(logits, dtype=torch.bfloat16, requires_grad=True)
made = scores, torch.tensor(labels)
exact = scores.detach().float().numpy()
""",
    "jax": """
import jax.numpy as jnp
scores = jnp.asarray(logits, dtype=jnp.bfloat16)
made = scores, jnp.asarray(labels)
exact = np.asarray(scores.astype(jnp.float32))
""",
    "tensorflow": """
import tensorflow as tf
scores = tf.cast(tf.constant(logits), tf.bfloat16)
made = scores, tf.constant(labels)
exact = tf.cast(scores, tf.float32).numpy()
""",
}
CHECK = """
import json
from unoic_cli import LambdaPath, LogitWriter, search_lambda, evaluate
path = LambdaPath(10, source_prior=train_counts)
with LogitWriter("x.h5", dtype="float32", source_counts=train_counts) as writer:
    for piece in (slice(0, 130), slice(130, 300)):
        path.update(made[0][piece], made[1][piece])
        writer.write(made[0][piece], made[1][piece])
right = search_lambda(exact, labels, source_prior=train_counts)
assert json.dumps(path.compute().to_dict()) == json.dumps(right.to_dict())
assert search_lambda("x.h5").best == right.best
"""


@pytest.mark.parametrize("name", TENSORS)
def test_tensors_of_frameworks_are_counted_and_written(name, tmp_path):
    """bfloat16, and those that need a gradient."""
    need(name)
    logits = "logits = (inputs[:, :10] + np.log(train_counts / 1340)).astype('float32')\n"
    ran(tmp_path, DATA + logits + TENSORS[name] + CHECK)


def test_no_recipe_is_forgotten():
    assert {name for name, _ in RECIPES} == set(BEFORE) and {name.partition(".")[0] for name in BEFORE} == set(
        FRAMEWORKS
    )


def test_files_of_ranks_are_read_together(tmp_path, monkeypatch):
    """A pattern names them in natural order, and they are one data set."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    z, y = rng.normal(size=(240, 3)).astype("f4"), rng.integers(0, 3, 240)
    edges = np.linspace(0, 240, 13).astype(int)
    paths = []
    for rank in range(12):  # 2 before 10
        mine = slice(edges[rank], edges[rank + 1])
        with unoic_cli.LogitWriter(f"val.{rank}.h5", source_counts=[5, 3, 1], dtype="float32") as writer:
            writer.write(z[mine], y[mine], sample_id=np.arange(240)[mine])
        paths.append(unoic_cli.LambdaPath(3, source_counts=[5, 3, 1]))
        paths[-1].update(z[mine], y[mine])
    read, whole = unoic_cli.search_lambda("val.*.h5"), unoic_cli.search_lambda(z, y, source_prior=[5, 3, 1])
    assert read.details["files"] == [f"val.{rank}.h5" for rank in range(12)]
    for found in (read, sum(paths).compute()):
        assert found.lam == whole.lam and found.best == whole.best and found.choice == whole.choice
        assert (found.counts.hits == whole.counts.hits).all()
    shutil.copy("val.0.h5", "val.12.h5")  # a rank that had the samples of another
    assert any(
        "20 of 260 samples have a sample_id that occurred" in one for one in unoic_cli.evaluate("val.*.h5").notes
    )
