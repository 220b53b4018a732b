"""Tables 4 and 5 and Figure 4: the street networks of `sample_data/streets` on more images, and with dropout at test.

    python experiments/streets.py

trains three networks (kept in `experiments/runs/streets/models`) and writes to `experiments/runs/streets`: `more`, 60
validation, 120 test images and 60 of each unseen condition; `again`, the images of the sample; `images.npz`, what those
in rain look like; and `passes/NETWORK.CONDITION.npy` (N, 16, K, H, W), what 16 passes with dropout say of them.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import torch
from longtail import RUNS
from torch import nn

HERE = Path(__file__).resolve().parent
STREETS = HERE.parent / "sample_data" / "streets"
FOLDER = RUNS / "streets"
PASSES = 16
NETWORKS = ("--networks", "rgb", "depth", "rgb_focal")
SIZES = ("--images-val", "60", "--images-test", "120", "--images-condition", "60")

sys.path.insert(0, str(STREETS))
import networks  # noqa: E402  # the folder of the sample


def dropping(network: networks.UNet) -> networks.UNet:
    """The network as it is at test, but for its dropout, which goes on."""
    network.eval()
    for module in network.modules():
        if isinstance(module, nn.Dropout2d):
            module.train()
    return network


def seeds_of(split: str) -> list[int]:
    """Those of the committed images."""
    with h5py.File(STREETS / "rgb" / f"{split}.h5") as file:
        numbers = [int(name.rpartition("-")[2]) for name in file["sample_id"].asstr()[()]]
    return [networks.FIRST_SEED[split] + number for number in numbers]


def write_passes() -> None:
    """Logits of 16 passes with dropout, of every committed image."""
    (FOLDER / "passes").mkdir(parents=True, exist_ok=True)
    for name in ("rgb", "depth"):
        network = networks.UNet(3 if name == "rgb" else 1)
        network.load_state_dict(torch.load(FOLDER / "models" / f"{name}.pt", weights_only=True))
        dropping(network)
        for split in ("val", *networks.UNSEEN_WEATHER):
            path = FOLDER / "passes" / f"{name}.{split}.npy"
            if path.exists():
                continue
            torch.manual_seed(0)
            inputs = networks.tensor(name, networks.draw(split, seeds_of(split)))
            with torch.no_grad():
                passes = torch.stack([network(inputs) for _ in range(PASSES)], dim=1)
            part = path.with_name("part.npy")
            np.save(part, passes.numpy().astype(np.float16))
            part.rename(path)


def write_images() -> None:
    """Colour and depth images of the committed rainy scenes, for Figure 4."""
    rgb, depth, _ = networks.draw("rain", seeds_of("rain"))
    clean = networks.draw("rain", seeds_of("rain"), clean_depth=True)[1]
    np.savez_compressed(FOLDER / "images.npz", rgb=rgb, depth=depth, depth_clean=clean)


def main() -> None:
    """Make what is not there yet."""
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    FOLDER.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(STREETS / "networks.py"), "--models", str(FOLDER / "models"), *NETWORKS]
    for name, sizes in (("more", SIZES), ("again", ())):
        if not (FOLDER / name / "rgb" / "soft_rain.h5").exists():
            subprocess.run([*command, "--out", str(FOLDER / name), *sizes], check=True)
    write_images()
    write_passes()


if __name__ == "__main__":
    main()
