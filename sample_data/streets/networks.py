"""Remake this folder: train small segmentation networks on the street scenes and save what they say about others.

Needs numpy, h5py and PyTorch (CPU). `python networks.py --out DIR --models DIR` trains what is not in the models
folder yet, then writes the logits of validation, test and seven unseen conditions. Progress goes to stderr.
"""

from __future__ import annotations

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
from numpy.typing import NDArray
from scenes import ANIMAL, CLASS_NAMES, CYCLIST, LIGHT, PEDESTRIAN, SIGN, TRAIN_WEATHER, UNSEEN_WEATHER, render
from torch import Tensor, nn
from torch.nn import functional

HERE = Path(__file__).parent
K = len(CLASS_NAMES)
FIRST_SEED = {"train": 0, "val": 1_000_000, "test": 2_000_000}
FIRST_SEED |= {name: 3_000_000 + 100_000 * i for i, name in enumerate(UNSEEN_WEATHER)}
STEP = 1 / 32
"""Saved logits are multiples of this, so that they compress."""

NETWORKS = {
    "rgb": ("rgb", "cross_entropy"),
    "depth": ("depth", "cross_entropy"),
    "rgb_focal": ("rgb", "focal"),
    "rgb_median_frequency": ("rgb", "median_frequency"),
    "rgb_max_frequency": ("rgb", "max_frequency"),
    "rgb_ldam": ("rgb", "ldam"),
}
"""Name: what it sees, and its loss."""

Scenes = tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.uint8]]


def condition_of(split: str, seed: int) -> str:
    """Unseen conditions are splits of their own; the others take the training conditions in turn."""
    return split if split in UNSEEN_WEATHER else list(TRAIN_WEATHER)[seed % len(TRAIN_WEATHER)]


def draw(split: str, seeds: list[int], clean_depth: bool = False) -> Scenes:
    """Render scenes into three arrays."""
    images = [render(seed, condition_of(split, seed), clean_depth) for seed in seeds]
    rgb, depth, labels = zip(*images, strict=True)
    return np.stack(rgb), np.stack(depth), np.stack(labels)


def choose(split: str, n: int) -> list[int]:
    """Seeds of a held-out split, in rising order.

    So that no class is missing, the first seeds are taken that show 6 pixels or more of a rare class, until there are 2
    such images of each rare class (1 when fewer than 12 are asked for). The other places go to the first seeds left.
    """
    first, enough, chosen = FIRST_SEED[split], 2 if n >= 12 else 1, set[int]()
    wanted = dict.fromkeys((PEDESTRIAN, SIGN, CYCLIST, LIGHT, ANIMAL), enough)
    seed = first
    while any(wanted.values()) and len(chosen) < n:
        pixels = np.bincount(render(seed, condition_of(split, seed))[2].ravel(), minlength=K)
        shown = [k for k in wanted if pixels[k] >= 6]
        if any(wanted[k] for k in shown):
            chosen.add(seed)
            for k in shown:
                wanted[k] = max(0, wanted[k] - 1)
        seed += 1
    seed = first
    while len(chosen) < n:
        chosen.add(seed)
        seed += 1
    return sorted(chosen)


def tensor(modality: str, scenes: Scenes) -> Tensor:
    """What a network sees, (N, C, H, W): colour, or the logarithm of depth, both about -1.5 ... 1.5."""
    if modality == "rgb":
        return torch.from_numpy(scenes[0]).permute(0, 3, 1, 2).float() / 85 - 1.5
    return (torch.from_numpy(scenes[1]).log()[:, None] - 3) / 1.2


class Block(nn.Sequential):
    """Two convolutions with batch normalisation."""

    def __init__(self, before: int, after: int):
        layers: list[nn.Module] = []
        for inputs in (before, after):
            layers += [nn.Conv2d(inputs, after, 3, padding=1, bias=False), nn.BatchNorm2d(after), nn.ReLU(inplace=True)]
        super().__init__(*layers)


class UNet(nn.Module):
    """Four scales with skip connections. With `cosine`, the classes are told by angle alone, as LDAM wants it."""

    def __init__(self, channels: int, cosine: bool = False, width: tuple[int, ...] = (12, 24, 40, 56)):
        super().__init__()
        self.cosine = cosine
        sizes = (channels, *width)
        self.down = nn.ModuleList(Block(a, b) for a, b in itertools.pairwise(sizes))
        self.up = nn.ModuleList(Block(a + b, a) for a, b in itertools.pairwise(width))
        self.dropout = nn.Dropout2d(0.1)
        self.last = nn.Conv2d(width[0], K, 1, bias=not cosine)

    def forward(self, x: Tensor) -> Tensor:
        """Logits, (N, K, H, W); cosines in -1 ... 1 with `cosine`."""
        skips = []
        for i, block in enumerate(self.down):
            x = block(functional.max_pool2d(x, 2) if i else x)
            skips.append(x)
        x = self.dropout(skips.pop())
        for block in reversed(self.up):
            x = functional.interpolate(x, scale_factor=2, mode="nearest")
            x = block(torch.cat([x, skips.pop()], 1))
        if self.cosine:
            return functional.conv2d(functional.normalize(x, dim=1), functional.normalize(self.last.weight, dim=1))
        return self.last(x)


def loss_function(name: str, labels: NDArray[np.uint8]) -> Callable[[Tensor, Tensor], Tensor]:
    """Loss of logits (N, K, H, W) and labels (N, H, W), given the labels of the training set.

    Weighted losses are divided by the sum of the weights, so a factor common to all classes changes nothing; what tells
    the two weightings apart is that a median frequency is taken over those images only that show the class.
    """
    shown = np.stack([np.bincount(image.ravel(), minlength=K) for image in labels])
    n = torch.tensor(shown.sum(0), dtype=torch.float32)
    if name == "median_frequency":
        f = n / torch.tensor((shown > 0).sum(0) * labels[0].size, dtype=torch.float32)
        return partial(functional.cross_entropy, weight=f.quantile(0.5) / f)
    if name == "max_frequency":
        return partial(functional.cross_entropy, weight=n.max() / n)
    if name == "focal":

        def focal(z: Tensor, y: Tensor) -> Tensor:
            loss = functional.cross_entropy(z, y, reduction="none")
            return ((1 - torch.exp(-loss)) ** 2 * loss).mean()

        return focal
    if name == "ldam":
        margin = n**-0.25
        margin = 0.5 * margin / margin.max()

        def ldam(cosine: Tensor, y: Tensor) -> Tensor:
            taken = functional.one_hot(y, K).permute(0, 3, 1, 2) * margin[:, None, None]
            return functional.cross_entropy(30 * (cosine - taken), y)

        return ldam
    return functional.cross_entropy


def train(name: str, scenes: Scenes, check: Scenes, epochs: int) -> UNet:
    """Train one network with Adam, a one-cycle learning rate and mirrored images."""
    modality, loss_name = NETWORKS[name]
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    inputs, labels = tensor(modality, scenes), torch.from_numpy(scenes[2]).long()
    criterion = loss_function(loss_name, scenes[2])
    network = UNet(inputs.shape[1], cosine=loss_name == "ldam")
    batch = 4
    steps = len(labels) // batch
    optimiser = torch.optim.Adam(network.parameters(), lr=4e-3, weight_decay=1e-5)
    rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 4e-3, epochs * steps, pct_start=0.2)
    start = time.perf_counter()
    for epoch in range(epochs):
        network.train()
        order, total = rng.permutation(len(labels)), 0.0
        for i in range(steps):
            rows = torch.from_numpy(order[i * batch : (i + 1) * batch])
            x, y = inputs[rows], labels[rows]
            if rng.random() < 0.5:
                x, y = x.flip(-1), y.flip(-1)
            optimiser.zero_grad()
            loss = criterion(network(x), y)
            loss.backward()
            optimiser.step()
            rate.step()
            total += loss.item()
        right = (predict(network, modality, check).argmax(1) == check[2]).mean()
        seconds = time.perf_counter() - start
        text = f"{name} epoch {epoch + 1}: loss {total / steps:.4f}, val accuracy {100 * right:.2f} %, {seconds:.0f} s"
        print(text, file=sys.stderr, flush=True)
    return network


def predict(network: UNet, modality: str, scenes: Scenes) -> NDArray[np.float32]:
    """Logits of every image, (N, K, H, W)."""
    network.eval()
    with torch.no_grad():
        parts = [network(part) for part in tensor(modality, scenes).split(16)]
    return torch.cat(parts).numpy()


def write(path: Path, split: str, seeds: list[int], labels: NDArray[np.uint8], extra: dict[str, Any]) -> None:
    """One file: `extra` holds logits and source_counts, or predictions."""
    path.parent.mkdir(parents=True, exist_ok=True)
    packed: dict[str, Any] = {"compression": "gzip", "compression_opts": 9, "shuffle": True}
    text = h5py.string_dtype()
    with h5py.File(path, "w") as file:
        file.attrs["unoic_schema"] = 1
        for name, values in {**extra, "labels": labels}.items():
            options = {} if values.ndim == 1 else {**packed, "chunks": (1, *values.shape[1:])}
            file.create_dataset(name, data=values, **options)
        if "predictions" in extra:
            file["predictions"].attrs["n_classes"] = K
        file.create_dataset("class_names", data=CLASS_NAMES, dtype=text)
        ids = [f"{split}-{seed - FIRST_SEED[split]:06d}" for seed in seeds]
        file.create_dataset("sample_id", data=ids, dtype=text)
        file.create_dataset("group", data=[condition_of(split, seed) for seed in seeds], dtype=text)


def main() -> None:
    """Train, or load, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="where the files go; without it, networks are only trained")
    parser.add_argument("--models", type=Path, required=True, help="where the weights of trained networks are kept")
    parser.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), metavar="NAME")
    parser.add_argument("--images-train", type=int, default=800)
    parser.add_argument("--images-val", type=int, default=12)
    parser.add_argument("--images-test", type=int, default=12)
    parser.add_argument("--images-condition", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1, help="other numbers may change the last digits")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.use_deterministic_algorithms(True)
    scenes = draw("train", list(range(args.images_train)))
    counts = np.bincount(scenes[2].ravel(), minlength=K)
    print("training pixels:", dict(zip(CLASS_NAMES, counts.tolist(), strict=True)), file=sys.stderr, flush=True)
    check = draw("val", [FIRST_SEED["val"] + i for i in range(40)])
    args.models.mkdir(parents=True, exist_ok=True)
    networks = {}
    for name in args.networks:
        modality, loss_name = NETWORKS[name]
        path = args.models / f"{name}.pt"
        if path.exists():
            networks[name] = UNet(3 if modality == "rgb" else 1, cosine=loss_name == "ldam")
            networks[name].load_state_dict(torch.load(path, weights_only=True))
        else:
            networks[name] = train(name, scenes, check, args.epochs)
            torch.save(networks[name].state_dict(), path)
    if args.out is None:
        return
    sizes = {"val": args.images_val, "test": args.images_test}
    sizes |= dict.fromkeys(UNSEEN_WEATHER, args.images_condition)
    for split, n in sizes.items():
        seeds = choose(split, n)
        held_out = draw(split, seeds)
        export = dict(networks)
        if (split in UNSEEN_WEATHER or split == "val") and "depth" in export:
            export["depth_clean"] = export["depth"]
        for name, network in export.items():
            modality, loss_name = NETWORKS[name.removesuffix("_clean")]
            only_test = loss_name in ("median_frequency", "max_frequency", "ldam")
            if (split in UNSEEN_WEATHER and loss_name != "cross_entropy") or (only_test and split != "test"):
                continue
            seen = draw(split, seeds, clean_depth=True) if name == "depth_clean" else held_out
            logits = predict(network, modality, seen)
            if only_test:
                extra = {"predictions": logits.argmax(1).astype(np.uint8)}
            else:
                rounded = (np.round(logits / STEP) * STEP).astype(np.float16)
                extra = {"logits": rounded, "source_counts": counts.astype(np.int64)}
            write(args.out / name / f"{split}.h5", split, seeds, held_out[2], extra)
        print(f"{split}: {n} images written", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
