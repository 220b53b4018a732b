"""`export`: the layer that it makes gives the calibrated posterior, exactly."""

from __future__ import annotations

import json
import struct
import textwrap

import naive
import numpy as np
import pytest

import unoic_cli
from unoic_cli import Calibration, cli
from unoic_cli.calibrations.calibration import Modality
from unoic_cli.calibrations.delta import DeltaStatistics
from unoic_cli.calibrations.prior import Prior
from unoic_cli.errors import UnoicError

K, D = 5, 7


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def made(lam=0.8, temperature=2.0, **more):
    prior = Prior.from_weights([50.0, 20.0, 10.0, 5.0, 1.0], "given", counts=True)
    target = Prior.from_weights([1.0] * K, "uniform", counts=False)
    return Calibration(lam, target, (Modality(None, prior, temperature, **more),))


def softmax_of(w, c, x):
    return naive.softmax(x @ w.T + c)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 0.3])
@pytest.mark.parametrize("offsets", [None, (0.5, 0.0, -1.0, 0.25, 2.0)])
def test_the_layer_is_the_calibrated_one(temperature, offsets):
    rng = np.random.default_rng(0)
    w, c, x = rng.normal(size=(K, D)), rng.normal(size=K), rng.normal(size=(100, D))
    calibration = made(temperature=temperature, offsets=offsets)
    layer = unoic_cli.export(calibration)
    found = softmax_of(layer.scale * w, layer.scale * c + np.array(layer.bias), x)
    np.testing.assert_allclose(found, calibration.predict_proba(x @ w.T + c), rtol=1e-12)
    s = naive.slopes([50, 20, 10, 5, 1], np.ones(K))
    scores = (x @ w.T + c) / temperature + 0.8 * s + (0 if offsets is None else np.array(offsets))
    np.testing.assert_allclose(found, naive.softmax(scores), rtol=1e-12)


def test_every_form_holds_the_same_numbers():
    calibration = made()
    layer = unoic_cli.export(calibration)
    for form in ("npz", "json", "safetensors"):
        unoic_cli.export(calibration, bias=f"layer.{form}")
    with np.load("layer.npz") as file:
        assert file["bias"].tolist() == list(layer.bias) and float(file["scale"]) == layer.scale
    with open("layer.json") as file:
        content = json.load(file)
    assert content["bias"] == list(layer.bias) and content["scale"] == layer.scale
    with open("layer.safetensors", "rb") as file:
        (n,) = struct.unpack("<Q", file.read(8))
        header, data = json.loads(file.read(n)), file.read()
    begin, end = header["bias"]["data_offsets"]
    assert np.frombuffer(data[begin:end], "<f8").tolist() == list(layer.bias)
    begin, end = header["scale"]["data_offsets"]
    assert np.frombuffer(data[begin:end], "<f8").tolist() == [layer.scale] and header["scale"]["shape"] == []
    unoic_cli.export(made(temperature=1.0), bias="bias.npy")
    assert np.load("bias.npy").tolist() == list(unoic_cli.export(made(temperature=1.0)).bias)


def test_classes_that_are_never_predicted():
    prior = Prior((0.5, 0.5, 0.0, 0.0, 0.0), "given")
    calibration = Calibration(1.0, Prior((0.2,) * K, "uniform"), (Modality(None, prior, 1.0),))
    layer = unoic_cli.export(calibration, bias="layer.json")
    assert list(layer.bias[2:]) == [-np.inf] * 3
    with open("layer.json") as file:
        assert json.load(file)["bias"][2:] == [None] * 3
    assert 'float("-inf")' in layer.torch()
    z = np.random.default_rng(0).normal(size=(9, K))
    np.testing.assert_allclose(naive.softmax(z + np.array(layer.bias)), calibration.predict_proba(z), rtol=1e-12)


def test_lines_for_torch():
    torch = pytest.importorskip("torch", reason="pip install torch")
    calibration = made(temperature=2.0)
    head = torch.nn.Linear(D, K).double()
    x = torch.randn(20, D, dtype=torch.float64)
    before = head(x).detach().numpy()
    exec(unoic_cli.export(calibration).torch(), {"head": head})
    after = torch.softmax(head(x), 1).detach().numpy()
    np.testing.assert_allclose(after, calibration.predict_proba(before), rtol=1e-12)


def test_the_command(capfd):
    made(temperature=1.0).save("c.json")
    assert cli.run(["export", "c.json", "--bias", "bias.npy"]) == 0
    content = json.loads(capfd.readouterr().out)
    assert content["schema"] == "unoic.export/1" and content["bias"] == np.load("bias.npy").tolist()
    assert cli.run(["export", "c.json", "--torch"]) == 0
    compile(textwrap.dedent(capfd.readouterr().out), "lines", "exec")
    assert cli.run(["export", "c.json", "--format", "tsv"]) == 0
    assert len(capfd.readouterr().out.splitlines()) == K + 1
    assert cli.run(["export", "c.json", "--format", "table"]) == 0
    assert "bias, 4" in capfd.readouterr().out


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("none.json",), 66, "none.json"),
        (("c.json", "--bias", "c.json"), 73, "c.json"),
        (("c.json", "--bias", "there.npz"), 73, "there.npz"),
        (("c.json", "--bias", "b.txt"), 2, "expected a name that ends with .npy"),
        (("c.json", "--bias", "b.npy"), 2, "where the temperature is 2; expected .npz"),
        (("c.json", "--bias", "nowhere/b.npz"), 73, "nowhere"),
        (("c.json", "--force"), 2, "--force without --bias"),
        (("c.json", "--torch", "--format", "json"), 2, "expected one of them"),
        (("delta.json",), 2, "statistics of delta"),
        (("two.json",), 2, "a fusion of a, b"),
        (("other.json",), 65, "other.json"),
    ],
)
def test_what_is_refused(words, code, said, capfd, tmp_path):
    calibration = made()
    calibration.save("c.json")
    made(delta=DeltaStatistics(0.4, 0.1)).save("delta.json")
    one = calibration.modalities[0]
    two = [Modality(name, one.source_prior, 1.0) for name in "ab"]
    Calibration(1.0, calibration.target_prior, tuple(two), "average", (0.5, 0.5)).save("two.json")
    (tmp_path / "other.json").write_text("{}")
    (tmp_path / "there.npz").write_text("")
    assert cli.run(["export", *words]) == code
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("unoic: error: ") and said in err and err.count("\n") == 1
    assert not (tmp_path / "b.npy").exists()


def test_only_calibrations_are_taken():
    with pytest.raises((UnoicError, TypeError)):
        unoic_cli.export(3)
