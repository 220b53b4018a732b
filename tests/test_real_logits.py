"""DermaMNIST logits of four published networks, where they are at hand: the figures that others computed from them.

Logits: github.com/HrushiSanap/medmnist_ensemble_study (MIT). Prior: the published training counts; lambda on the
grid 0:2:0.1, tuned for mean class accuracy on val, all figures on test, in percent.
"""

import pathlib

import pytest

import unoic_cli

DATA = pathlib.Path(__file__).resolve().parents[2] / "shared" / "data" / "dermamnist_4nets.npz"

# network: lambda, then (accuracy, mean class accuracy) at lambda 0, 1 and the tuned one
FIGURES = {
    "ConvNeXtBase": (2.0, (88.82, 79.31), (88.42, 82.27), (86.63, 84.36)),
    "EfficientNetV2M": (1.2, (87.82, 79.41), (87.52, 79.92), (87.43, 80.31)),
    "InceptionResNetV2": (1.3, (82.14, 61.26), (78.84, 70.72), (74.25, 71.54)),
    "ViT_Base": (1.3, (90.62, 83.47), (90.42, 84.72), (90.52, 85.07)),
}


@pytest.mark.skipif(not DATA.exists(), reason="the real logits are not here")
@pytest.mark.parametrize("network", FIGURES)
def test_figures_agree_to_a_hundredth_of_a_point(network, tmp_path):
    path = str(tmp_path / "derma.h5")
    unoic_cli.convert(DATA, path, logits_key=f"logits_{network}")
    found = unoic_cli.search_lambda(path, split="val", range="0:2:0.1", choose="best")
    lam, *expected = FIGURES[network]
    assert found.lam == lam
    for how, (acc, macc) in zip(({}, {"lam": 1.0}, {"calibration": found.calibration}), expected, strict=True):
        values = unoic_cli.evaluate(path, split="test", **how).overall.values
        assert (round(100 * values["acc"], 2), round(100 * values["macc"], 2)) == (acc, macc)
