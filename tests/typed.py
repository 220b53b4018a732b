"""Calls as mypy sees them: the good ones pass, and each bad one is reported, or its ignore would be unused."""

from __future__ import annotations

import pathlib

import numpy as np

import unoic_cli

LOGITS, LABELS = np.zeros((4, 3), dtype=np.float32), [0, 1, 2, 0]


def good() -> float:
    """Keywords of a command's own, and those that commands share."""
    found = unoic_cli.search_lambda(LOGITS, LABELS, folds=3, range=(0, 2), source_prior=[2, 1, 1], threads=1)
    unoic_cli.search_lambda("val.h5", range="0:2", output=pathlib.Path("c.json"), ignore_index=[255], split="val")
    unoic_cli.evaluate({"rgb": LOGITS, "depth": LOGITS}, LABELS, calibration=found.calibration, by="file")
    unoic_cli.export("c.json", onnx="m.onnx", output=pathlib.Path("c.onnx"), output_name="logits")
    shapes = [one.says for one in unoic_cli.info("c.json").explained]
    made = unoic_cli.calibrate(LOGITS, lam=1.0, source_prior=[2, 1, 1])
    assert made.log_probs is not None and made.log_probs.shape == LOGITS.shape and shapes
    return unoic_cli.prior("train.h5", memory="64MB").prior[0]


def bad() -> None:
    """Misspelt keywords, and values of another type."""
    unoic_cli.search_lambda("val.h5", fold=3)  # type: ignore[call-arg]
    unoic_cli.search_lambda("val.h5", folds="three")  # type: ignore[arg-type]
    unoic_cli.search_lambda("val.h5", thread=2)  # type: ignore[call-arg]
    unoic_cli.evaluate("test.h5", absent="none")  # type: ignore[arg-type]
    unoic_cli.evaluate("test.h5", threads="all")  # type: ignore[arg-type]
    unoic_cli.evaluate("test.h5", output="result.json")  # type: ignore[call-arg]
    unoic_cli.calibrate("test.h5", emit="odds")  # type: ignore[arg-type]
    unoic_cli.fit_temperature("val.h5", bins=None)  # type: ignore[arg-type]
    unoic_cli.pack("val.h5", "packed.h5", dtypes="float16")  # type: ignore[call-arg]
