"""Every figure of docs/experiments.md, by `unoic plot` and `unoic show`.

    python experiments/figures.py [--out docs/figures] [FIGURE ...]

prints each command before it runs it. Figures whose logits are not there are left out, and named on stderr.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from tables import HERE, RUNS, STREETS, LackingError, there

ROOT = HERE.parent
WORK = RUNS / "figures"
"""Results that figures are made of."""

Command = list[str]


def near(path: Path | str) -> str:
    """The name of a file as seen from the root."""
    path = Path(path)
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


def search(name: str, *words: str) -> tuple[Command, str]:
    """A search, and the state that it leaves."""
    state = near(WORK / f"{name}.unoic")
    return ["search-lambda", *words, "--state", state, "--force", "-q"], state


def figure1(out: Path) -> Iterator[Command]:
    """The odds that lambda leaves of a ratio of priors."""
    yield ["plot", "odds", "-o", near(out / "fig1.png"), "--size", "page", "--force"]


def figure2(out: Path) -> Iterator[Command]:
    """Boundaries at several lambdas, and accuracy along lambda."""
    for name in ("circle", "moons"):
        grid, train = (near(there(RUNS / "toy" / f"{name}.{part}.h5")) for part in ("grid", "train"))
        lams = [word for lam in ("0", "0.5", "1", "2") for word in ("-l", lam)]
        yield ["plot", "boundary", grid, "--points", train, *lams, "-o", near(out / f"fig2-{name}.png"), "--force"]
        states = []
        for seed in range(5):
            val = near(there(RUNS / "toy" / f"{name}.{seed}.val.h5"))
            command, state = search(f"{name}{seed}", val, "--metric", "acc", "--choose", "best")
            yield command
            states.append(f"seed-{seed}={state}")
        yield ["plot", "curve", *states, "-o", near(out / f"fig2-{name}-curve.png"), "--force"]


def streets(depth: str) -> tuple[list[Command], list[str], list[str]]:
    """Commands that fit delta of both networks, validation files, and options for delta."""
    places = {"rgb": "rgb", "depth": depth}
    val = [f"{name}={near(there(STREETS / place / 'val.h5'))}" for name, place in places.items()]
    states = [near(WORK / f"{place}.json") for place in places.values()]
    fits = [["fit-delta", file, "-o", state, "--force"] for file, state in zip(val, states, strict=True)]
    return fits, val, [w for name, state in zip(places, states, strict=True) for w in ("--delta", f"{name}={state}")]


def figure3(out: Path) -> Iterator[Command]:
    """Top-1 and top-5 accuracy of 8,142 classes, and mIoU and mAcc of the streets, along lambda."""
    blank = near(there(RUNS / "blank" / "ce.val.h5"))
    command, state = search("blank", blank, "--metric", "acc", "--choose", "best", "--metrics", "acc,top5")
    yield command
    yield ["plot", "curve", state, "--metric", "acc", "--metric", "top5", "-o", near(out / "fig3-words.png"), "--force"]
    fits, val, delta = streets("depth_clean")
    yield from fits
    command, state = search("streets", *val, *delta, "--metric", "macc", "--choose", "best")
    yield command
    metrics = ["--metric", "macc", "--metric", "miou"]
    yield ["plot", "curve", state, *metrics, "-o", near(out / "fig3-streets.png"), "--force"]
    yield ["plot", "tradeoff", state, "-o", near(out / "fig3-tradeoff.png"), "--force"]


def figure4(out: Path) -> Iterator[Command]:
    """Streets in rain at lambda 0.4, depth clean and degraded."""
    images = there(RUNS / "streets" / "images.npz")
    for folder, title in (("depth_clean", "fig4"), ("depth", "fig4-degraded")):
        fits, val, delta = streets(folder)
        yield from fits
        ic, uno_ic = near(WORK / "ic.json"), near(WORK / "uno-ic.json")
        yield ["search-lambda", *val, "--fusion", "average", "--lambda", "0.4", "-o", ic, "--force"]
        yield ["search-lambda", *val, *delta, "--lambda", "0.4", "-o", uno_ic, "--force"]
        methods = ["SoftAve=average", "UNO=uno", f"IC={ic}", f"UNO-IC={uno_ic}"]
        inputs = [f"rgb={near(STREETS / 'rgb' / 'rain.h5')}", f"depth={near(there(STREETS / folder / 'rain.h5'))}"]
        pictures = ["--inputs", f"rgb={near(images)}::rgb", "--inputs", f"depth={near(images)}::{folder}"]
        yield [
            "show", *inputs, *delta, *(word for one in methods for word in ("-m", one)), *pictures,
            "--images", "0,2,4", "-o", near(out / f"{title}.png"), "--force",
        ]  # fmt: skip


FIGURES: dict[str, Callable[[Path], Iterator[Command]]] = {
    one.__name__: one for one in (figure1, figure2, figure3, figure4)
}


def main() -> None:
    """Draw."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "figures")
    parser.add_argument("figures", nargs="*", metavar="FIGURE", help=f"of {', '.join(FIGURES)}; by default all")
    args = parser.parse_args()
    out = args.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    WORK.mkdir(parents=True, exist_ok=True)
    unoic = str(Path(sys.executable).with_name("unoic"))
    for name in args.figures or FIGURES:
        try:
            for command in FIGURES[name](out):
                print(f"unoic {shlex.join(command)}", flush=True)
                subprocess.run([unoic, *command], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        except LackingError as error:
            print(f"{name}: left out, as {error} is not there", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
