"""Draw docs/streets.png: what the networks and their fusions say of one image of four unseen conditions.

Needs unoic only. Everything is fitted on the validation files of this folder, as in docs/reproduction.md; colour and
depth images are drawn again from the sample ids. `python picture.py --out FILE.png`; the same picture every time.
"""

from __future__ import annotations

import argparse
import struct
import tempfile
import zlib
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray
from scenes import CLASS_NAMES, FAR, HEIGHT, UNSEEN_WEATHER, WIDTH, render

import unoic_cli

HERE = Path(__file__).resolve().parent
FIRST_SEED = {name: 3_000_000 + 100_000 * i for i, name in enumerate(UNSEEN_WEATHER)}
"""As in networks.py: the seed of scene 0 of each condition."""
SHOWN = ("fog", "fall", "winter_night", "rain_night")
"""Conditions, a row each: of each the first image among those with the most classes."""
SCALE, GAP, MARGIN, TITLE, LEGEND = 3, 6, 72, 48, 108
"""Pixels of the picture: for one of an image, between images, and what the texts take."""
PAPER, INK = (255, 255, 255), (30, 30, 30)

COLOURS = {
    "sky": (128, 190, 235),
    "building": (112, 104, 104),
    "road": (70, 60, 90),
    "sidewalk": (214, 170, 190),
    "tree": (60, 140, 60),
    "car": (30, 60, 220),
    "lane_marking": (245, 245, 245),
    "fence": (176, 120, 60),
    "pole": (0, 0, 0),
    "pedestrian": (220, 20, 40),
    "sign": (250, 220, 0),
    "cyclist": (130, 0, 190),
    "traffic_light": (255, 130, 0),
    "animal": (0, 235, 210),
}

# Letters of 5 x 7 dots: seven rows from the top, two hexadecimal digits each, the leftmost dot their highest bit.
LETTERS = {
    "A": "0e11111f111111", "B": "1e11111e11111e", "C": "0e11101010110e", "D": "1e11111111111e", "E": "1f10101e10101f",
    "F": "1f10101e101010", "G": "0e11101711110e", "H": "1111111f111111", "I": "0e04040404040e", "K": "11121418141211",
    "L": "1010101010101f", "M": "111b1515111111", "N": "11191513111111", "O": "0e11111111110e", "P": "1e11111e101010",
    "R": "1e11111e141211", "S": "0f10100e01011e", "T": "1f040404040404", "U": "1111111111110e", "V": "11111111110a04",
    "W": "11111115151b11", "Y": "11110a04040404", "-": "0000000e000000", " ": "00000000000000",
}  # fmt: skip

Image = NDArray[np.uint8]


def write_png(path: Path, image: Image) -> None:
    """Write an (H, W, 3) image; each row as its difference from the row above."""
    above = np.vstack([np.zeros_like(image[:1]), image[:-1]])
    rows = (image - above).reshape(len(image), -1)
    lines = np.hstack([np.full((len(image), 1), 2, np.uint8), rows]).tobytes()
    header = struct.pack(">IIBBBBB", image.shape[1], image.shape[0], 8, 2, 0, 0, 0)
    with open(path, "wb") as file:
        file.write(b"\x89PNG\r\n\x1a\n")
        for name, data in ((b"IHDR", header), (b"IDAT", zlib.compress(lines, 9)), (b"IEND", b"")):
            file.write(struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)))


def text(words: str, size: int) -> NDArray[np.bool_]:
    """Dots of one line of text, each letter 6 * size wide."""
    letters = []
    for letter in words.upper().replace("_", " "):
        rows = np.frombuffer(bytes.fromhex(LETTERS[letter]), np.uint8)
        letters.append(np.unpackbits(rows[:, None], axis=1)[:, 2:])
    dots = np.hstack(letters)[:, 1:].astype(bool)  # each letter begins with an empty column
    return dots.repeat(size, 0).repeat(size, 1)


def stamp(canvas: Image, dots: NDArray[np.bool_], y: int, x: int) -> None:
    """Print dots onto the canvas, their upper left corner at (y, x)."""
    canvas[y : y + dots.shape[0], x : x + dots.shape[1]][dots] = INK


def columns(folder: Path) -> dict[str, dict[str, Any]]:
    """Arguments of `unoic_cli.fuse` for each method: lambda 0.4, and (UNO-IC-T) that fitted for mAcc on val."""
    val = {name: str(HERE / name / "val.h5") for name in ("rgb", "depth")}
    delta = {}
    for name, file in val.items():
        delta[name] = str(folder / f"{name}.delta.json")
        unoic_cli.fit_delta({name: file}, output=delta[name])
    r = "rebalance-first"
    ic = unoic_cli.search_lambda(val, fusion="average", lam=0.4).calibration
    uno_ic = unoic_cli.search_lambda(val, delta=delta, lam=0.4).calibration
    uno_ic_r = unoic_cli.search_lambda(val, delta=delta, order=r, lam=0.4).calibration
    uno_ic_t = unoic_cli.search_lambda(val, delta=delta).calibration
    return {
        "SoftAve": {"fusion": "average"},
        "UNO": {"delta": delta},
        "IC": {"calibration": ic},
        "UNO-IC": {"calibration": uno_ic},
        "UNO-IC-r": {"calibration": uno_ic_r},
        "UNO-IC-T": {"calibration": uno_ic_t},
    }


def predictions(condition: str, methods: dict[str, dict[str, Any]], folder: Path) -> dict[str, Image]:
    """What each network and each method predicts for a condition, (N, 64, 96)."""
    files = {name: str(HERE / name / f"{condition}.h5") for name in ("rgb", "depth")}
    output = str(folder / "predictions.h5")
    found = {}
    for name, file in files.items():
        with h5py.File(file) as stored:
            found[f"{name} net"] = stored["logits"][()].argmax(1).astype(np.uint8)
    for name, arguments in methods.items():
        unoic_cli.fuse(files, output=output, emit="predictions", force=True, **arguments)
        with h5py.File(output) as stored:
            found[name] = stored["predictions"][()]
    return found


def panels(condition: str, methods: dict[str, dict[str, Any]], folder: Path) -> dict[str, Image]:
    """One row: title and (64, 96, 3) image of each column."""
    palette = np.array([COLOURS[name] for name in CLASS_NAMES], np.uint8)
    with h5py.File(HERE / "rgb" / f"{condition}.h5") as stored:
        labels = stored["labels"][()]
        place = int(np.argmax([len(np.unique(label)) for label in labels]))
        sample = stored["sample_id"].asstr()[place]
    rgb, depth, label = render(FIRST_SEED[condition] + int(sample.rpartition("-")[2]), condition)
    if (label != labels[place]).any():
        raise SystemExit(f"{sample}: numpy {np.__version__} draws another scene")
    grey = (255 * np.log(depth / depth.min()) / np.log(FAR / depth.min())).round().astype(np.uint8)
    row = {"RGB": rgb, "depth": np.stack([grey] * 3, -1), "truth": palette[label]}
    found = predictions(condition, methods, folder)
    return row | {name: palette[predicted[place]] for name, predicted in found.items()}


def draw() -> Image:
    """The whole picture."""
    with tempfile.TemporaryDirectory() as temporary:
        methods = columns(Path(temporary))
        rows = {condition: panels(condition, methods, Path(temporary)) for condition in SHOWN}
    titles = list(rows["fog"])
    high, wide = HEIGHT * SCALE, WIDTH * SCALE
    size = (TITLE + len(rows) * (high + GAP) + LEGEND, MARGIN + len(titles) * (wide + GAP))
    canvas = np.full((*size, 3), PAPER, np.uint8)
    for j, title in enumerate(titles):
        dots = text(title, 5)
        stamp(canvas, dots, 6, MARGIN + j * (wide + GAP) + (wide - dots.shape[1]) // 2)
    for i, (condition, row) in enumerate(rows.items()):
        y = TITLE + i * (high + GAP)
        for k, word in enumerate(condition.split("_")):
            dots = np.rot90(text(word, 4))
            stamp(canvas, dots, y + (high - dots.shape[0]) // 2, 4 + 34 * k)
        for j, image in enumerate(row.values()):
            x = MARGIN + j * (wide + GAP)
            canvas[y : y + high, x : x + wide] = image.repeat(SCALE, 0).repeat(SCALE, 1)
    across = (len(CLASS_NAMES) + 1) // 2
    for k, name in enumerate(CLASS_NAMES):
        y = size[0] - LEGEND + 10 + 50 * (k // across)
        x = MARGIN + (k % across) * ((size[1] - MARGIN) // across)
        canvas[y : y + 36, x : x + 36] = INK
        canvas[y + 2 : y + 34, x + 2 : x + 34] = COLOURS[name]
        stamp(canvas, text(name, 4), y + 4, x + 46)
    return canvas


def main() -> None:
    """Draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=HERE.parents[1] / "docs" / "streets.png")
    write_png(parser.parse_args().out, draw())


if __name__ == "__main__":
    main()
