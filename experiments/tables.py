"""Every table of docs/experiments.md from saved logits, by unoic alone: no network is trained or run here.

    python experiments/tables.py            all tables, in Markdown
    python experiments/tables.py table5     one of them

Tables whose logits are not there (see README.md, what to run first) are left out, and named on stderr.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import h5py
import numpy as np

import unoic_cli

HERE = Path(__file__).resolve().parent
RUNS = HERE / "runs"
STREETS = HERE.parent / "sample_data" / "streets"
DATA = ("fashion", "cldr")
SETTINGS = ("lt100", "lt10", "step100", "step10")
METHODS = ("ce", "focal", "ldam", "cb-ce", "cb-focal", "ce-drw", "focal-drw", "ldam-drw", "bbn")
SEEDS = (0, 1, 2)
LARGE = ("ce", "focal", "ldam", "ce-drw", "focal-drw", "ldam-drw")
TITLES = {
    "ce": "CE", "focal": "Focal", "ldam": "LDAM", "cb-ce": "CB CE", "cb-focal": "CB Focal", "ce-drw": "CE-DRW",
    "focal-drw": "Focal-DRW", "ldam-drw": "LDAM-DRW", "bbn": "BBN-lite",
}  # fmt: skip
UNSEEN = ("fog", "fall", "winter", "winter_night", "rain", "rain_night", "soft_rain")


SCRATCH = tempfile.TemporaryDirectory()
NUMBERS = itertools.count()


def scratch() -> Path:
    """A name for a file that nobody needs later."""
    return Path(SCRATCH.name) / f"{next(NUMBERS)}.h5"


class LackingError(Exception):
    """Logits that a table needs are not there."""


def there(path: Path) -> str:
    """The file, if it is there."""
    if not path.exists():
        raise LackingError(str(path))
    return str(path)


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """A table; all but the first `left` columns are numbers."""
    ruler = ["---"] * left + ["---:"] * (len(head) - left)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ruler, *rows))


def spread(values: Sequence[float]) -> str:
    """Mean and, of several, the standard deviation (ddof 1)."""
    more = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.2f}{more}"


# ------------------------------------------------------------------------------------------------
# Tables 2 and 6


class Cell(NamedTuple):
    """One network: errors in percent."""

    plain: float
    tuned: float
    lam: float
    same: float
    same_lam: float


def error(result: Any) -> float:
    """Of what was evaluated, in percent."""
    return float(100 * (1 - result.overall.values["acc"]))


@functools.cache
def cell(data: str, setting: str, seed: int, method: str) -> Cell:
    """Lambda of the best validation accuracy, applied to the test set; and the best of the test set itself."""
    folder = RUNS / data / setting / f"s{seed}"
    val, test = there(folder / f"{method}.val.h5"), there(folder / f"{method}.test.h5")
    found = unoic_cli.search_lambda(val, metric="acc", choose="best")
    same = unoic_cli.search_lambda(test, metric="acc", choose="best")
    return Cell(
        error(unoic_cli.evaluate(test)),
        error(unoic_cli.evaluate(test, calibration=found.calibration)),
        found.lam,
        100 * (1 - same.best["acc"]),
        same.lam,
    )


def average(cells: Sequence[Sequence[Cell]], field: str) -> str:
    """Of the columns."""
    return f"{statistics.mean(statistics.mean(getattr(one, field) for one in column) for column in cells):.2f}"


def errors(tuned: str, lam: str) -> str:
    """A table of errors: each method as it is and with lambda, the mean lambda in brackets."""
    places = [(data, setting) for data in DATA for setting in SETTINGS]
    head = ["", *(f"{data} {setting}" for data, setting in places), "Fashion", "CLDR", "all"]
    rows = []
    for method in METHODS:
        columns = [[cell(data, setting, seed, method) for seed in SEEDS] for data, setting in places]
        for field, title in (("plain", TITLES[method]), (tuned, f"{TITLES[method]}-IC")):
            texts = []
            for column in columns:
                text = spread([getattr(one, field) for one in column])
                if field == tuned:
                    text += f" ({statistics.mean(getattr(one, lam) for one in column):.2f})"
                texts.append(text)
            means = [average(part, field) for part in (columns[:4], columns[4:], columns)]
            rows.append([title, *texts, *means])
    return markdown(head, rows)


def table2() -> str:
    """Test error with lambda tuned on validation data."""
    return errors("tuned", "lam")


def table2_same() -> str:
    """The paper's protocol: tuned and reported on one set."""
    return errors("same", "same_lam")


def told() -> str:
    """What the program chooses and says by itself, on the validation set of every network of Tables 2 and 6."""
    rows = []
    for method in METHODS:
        lams, after, best, inside, lost = [], [], [], [], 0
        said: dict[str, int] = {}
        for data in DATA:
            for setting in SETTINGS:
                for seed in SEEDS:
                    folder = RUNS / data / setting / f"s{seed}"
                    found = unoic_cli.search_lambda(there(folder / f"{method}.val.h5"), metric="acc")
                    result = unoic_cli.evaluate(there(folder / f"{method}.test.h5"), calibration=found.calibration)
                    gain = found.gain["acc"]
                    truth = result.overall.values["acc"] - result.before.values["acc"]
                    lams.append(found.lam)
                    after.append(error(result))
                    best.append(cell(data, setting, seed, method).tuned)
                    inside.append(gain.low <= truth <= gain.high)
                    lost += truth < 0
                    for warning in found.warnings:
                        said[warning["code"]] = said.get(warning["code"], 0) + 1
        warned = ", ".join(f"{code} {n}" for code, n in sorted(said.items())) or "none"
        numbers = [f"{statistics.mean(values):.2f}" for values in (lams, after, best)]
        rows.append([TITLES[method], *numbers, f"{sum(inside)} of {len(inside)}", str(lost), warned])
    head = [
        "",
        "lambda",
        "test error",
        "with --choose best",
        "gain inside its interval",
        "networks that lose",
        "warnings",
    ]
    return markdown(head, rows)


# ------------------------------------------------------------------------------------------------
# Table 3


def table3() -> str:
    """Three folds of the held-out rows: lambda tuned on two, tested on the third."""
    rows = []
    for method in LARGE:
        row = [TITLES[method]]
        for task in ("hypernym", "blank"):
            file = there(RUNS / task / f"{method}.val.h5")
            found = unoic_cli.search_lambda(file, metric="acc", choose="best", folds=3, metrics="acc,top5")
            assert found.folds is not None
            summary = found.folds.to_dict(found.best)
            held, lams = summary["held_out"], summary["lambda"]
            before = [f"{100 * (1 - found.baseline[name]):.2f}" for name in ("acc", "top5")]
            after = [
                f"{100 * (1 - held[name]['mean']):.2f} ± {100 * held[name]['std']:.2f}" for name in ("acc", "top5")
            ]
            row += [before[0], after[0], f"{lams['mean']:.2f}", before[1], after[1]]
        rows.append(row)
    part = ["top-1", "-IC", "lambda", "top-5", "-IC"]
    return markdown(["", *(f"hypernym: {p}" for p in part), *(f"blank: {p}" for p in part)], rows)


# ------------------------------------------------------------------------------------------------
# Tables 4 and 5


@functools.cache
def more() -> Path:
    """The larger export of the street networks."""
    folder = RUNS / "streets" / "more"
    there(folder / "rgb" / "soft_rain.h5")
    return folder


def percent(result: Any, *names: str) -> list[str]:
    """Metrics, in percent."""
    return [f"{100 * result.overall.values[name]:.2f}" for name in names]


PAPER4 = {
    "CE": ("88.59", "84.48"), "median-frequency weights": ("97.89", "76.85"),
    "max-frequency weights": ("97.91", "76.84"),
    "LDAM": ("96.87", "71.28"), "focal": ("87.49", "82.10"), "CE-IC, lambda 0.4": ("94.93", "84.71"),
    "focal-IC, lambda 0.4": ("92.03", "82.13"),
}  # fmt: skip


def table4() -> str:
    """Within the training conditions."""
    folders = (STREETS, more())
    wanted: list[tuple[str, str, Any]] = [
        ("CE", "rgb", None),
        ("median-frequency weights", "rgb_median_frequency", None),
        ("max-frequency weights", "rgb_max_frequency", None),
        ("LDAM", "rgb_ldam", None),
        ("focal", "rgb_focal", None),
        ("CE-IC, lambda 0.4", "rgb", 0.4),
        ("focal-IC, lambda 0.4", "rgb_focal", 0.4),
        ("CE-IC, tuned for mAcc", "rgb", "macc"),
        ("CE-IC, tuned for mIoU", "rgb", "miou"),
        ("focal-IC, tuned for mAcc", "rgb_focal", "macc"),
        ("focal-IC, tuned for mIoU", "rgb_focal", "miou"),
    ]
    rows = []
    for title, network, how in wanted:
        row = [title]
        for folder in folders:
            if folder != STREETS and network not in ("rgb", "rgb_focal"):  # trained again, these alone
                row += [""] * 4
                continue
            test, given, lam = str(folder / network / "test.h5"), {}, ""
            if isinstance(how, float):
                given, lam = {"lam": how}, f"{how:g}"
            elif how is not None:
                val = str(folder / network / "val.h5")
                found = unoic_cli.search_lambda(val, metric=how, choose="best")
                given, lam = {"calibration": found.calibration}, f"{found.lam:.2f}"
            row += [lam, *percent(unoic_cli.evaluate(test, **given), "acc", "macc", "miou")]
        rows.append([*row, *PAPER4.get(title, ("", ""))])
    part = ["lambda", "acc", "mAcc", "mIoU"]
    head = ["", *(f"{p}, here" for p in part), *(f"{p}, more" for p in part), "paper: mAcc", "mIoU"]
    return markdown(head, rows)


def inputs(folder: Path, depth: str, splits: Sequence[str]) -> dict[str, list[str]]:
    """Files of both networks; `depth` is the folder of depth logits."""
    names = {"rgb": "rgb", "depth": depth}
    return {name: [there(folder / place / f"{split}.h5") for split in splits] for name, place in names.items()}


def validation(folder: Path, depth: str) -> dict[str, str]:
    """Validation files of both networks: `depth_clean` here is another network than `depth`, with its own."""
    return {name: there(folder / place / "val.h5") for name, place in (("rgb", "rgb"), ("depth", depth))}


@functools.cache
def fitted(folder: Path, depth: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Statistics for delta of both networks, of validation images and of their pixels."""
    val = validation(folder, depth)
    return tuple(
        {name: unoic_cli.fit_delta({name: file}, per_pixel=pixels).statistics for name, file in val.items()}
        for pixels in (False, True)
    )  # type: ignore[return-value]


def calibrations(folder: Path, depth: str, how: dict[str, Any]) -> dict[str, Any]:
    """IC, UNO-IC and UNO-IC with the order turned, at lambdas that `how` says."""
    delta = fitted(folder, depth)[0]
    make = functools.partial(unoic_cli.search_lambda, validation(folder, depth), **how)
    return {
        "IC": make(fusion="average").calibration,
        "UNO-IC": make(delta=delta).calibration,
        "UNO-IC-r": make(delta=delta, order="rebalance-first").calibration,
    }


def conditions(folder: Path, depth: str, how: dict[str, Any], singles: bool = True) -> Any:
    """All methods under the seven unseen conditions."""
    methods: dict[str, Any] = {"rgb": "rgb", "depth": "depth"} if singles else {}
    methods |= {"SoftAve": "average", "UNO": "uno", **calibrations(folder, depth, how)}
    delta = fitted(folder, depth)[0]
    return unoic_cli.compare(inputs(folder, depth, UNSEEN), methods=methods, delta=delta, by="group")


def bold(texts: list[list[str]], values: list[list[float]]) -> None:
    """Mark the largest of each column."""
    for j in range(len(texts[0])):
        best = max(row[j] for row in values)
        for i, row in enumerate(values):
            if f"{row[j]:.2f}" == f"{best:.2f}":
                texts[i][j] = f"**{texts[i][j]}**"


def by_condition(result: Any) -> str:
    """Mean IoU and mAcc under each condition."""
    names = [name for name in UNSEEN if name in result.conditions]
    halves = []
    for metric in ("miou", "macc"):
        values = [
            [100 * row.cells[name].values[metric] for name in names] + [100 * row.average[metric]]
            for row in result.rows
        ]
        texts = [[f"{value:.2f}" for value in row] for row in values]
        bold(texts, values)
        halves.append(texts)
    rows = [
        [row.name, *(f"{a} \\| {b}" for a, b in zip(halves[0][i], halves[1][i], strict=True))]
        for i, row in enumerate(result.rows)
    ]
    return markdown(["mIoU \\| mAcc", *names, "average"], rows)


FIXED: dict[str, Any] = {"lam": 0.4}


def table5() -> str:
    """At the paper's lambda, depth as Synthia has it: no weather touches it."""
    return by_condition(conditions(STREETS, "depth_clean", FIXED))


def table5_degraded() -> str:
    """At the paper's lambda, every sensor degraded."""
    return by_condition(conditions(STREETS, "depth", FIXED))


def table5_more() -> str:
    """The larger export, depth clean."""
    return by_condition(conditions(more(), "depth_clean", FIXED))


def table5_degraded_more() -> str:
    """The larger export, every sensor degraded."""
    return by_condition(conditions(more(), "depth", FIXED))


def averages(result: Any) -> dict[str, str]:
    """Mean IoU and mAcc, averaged over conditions, of each method."""
    return {row.name: f"{100 * row.average['miou']:.2f} \\| {100 * row.average['macc']:.2f}" for row in result.rows}


PAPER5 = {
    "SoftAve": "78.46 \\| 82.03",
    "UNO": "79.12 \\| 82.74",
    "IC": "78.55 \\| 87.92",
    "UNO-IC": "78.55 \\| 90.45",
}


def summary5() -> str:
    """Averages over the conditions, everywhere."""
    kinds = {"here, clean": (STREETS, "depth_clean"), "more, clean": (more(), "depth_clean"),
             "here, degraded": (STREETS, "depth"), "more, degraded": (more(), "depth")}  # fmt: skip
    columns = {
        f"{title}{said}": averages(conditions(folder, depth, how, singles=False))
        for how, said in ((FIXED, ""), ({"metric": "macc", "choose": "best"}, ", tuned for mAcc"))
        for title, (folder, depth) in kinds.items()
    }
    names = ("SoftAve", "UNO", "IC", "UNO-IC", "UNO-IC-r")
    rows = [[name, *(column[name] for column in columns.values()), PAPER5.get(name, "")] for name in names]
    return markdown(["mIoU \\| mAcc", *columns, "paper"], rows)


def lambdas5() -> str:
    """What a larger lambda does, and delta of each pixel."""
    lams = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)
    rows = []
    for depth, said in (("depth_clean", "clean"), ("depth", "degraded")):
        files = inputs(STREETS, depth, UNSEEN)
        for title, delta, order in (
            ("UNO-IC", fitted(STREETS, depth)[0], None),
            ("UNO-IC-r", fitted(STREETS, depth)[0], "rebalance-first"),
            ("UNO-IC, delta of each pixel", fitted(STREETS, depth)[1], None),
        ):
            val = validation(STREETS, depth)
            base = unoic_cli.search_lambda(val, delta=delta, lam=0.4, **({} if order is None else {"order": order}))
            methods = {f"{lam:g}": replace(base.calibration, lam=lam) for lam in lams}
            found = averages(unoic_cli.compare(files, methods=methods, by="group"))
            rows.append([f"{title}, {said}", *found.values()])
    return markdown(["mIoU \\| mAcc", *(f"lambda {lam:g}" for lam in lams)], rows)


def deltas() -> str:
    """Mean delta of each network's images."""
    rows = []
    for name, folder in (("rgb", "rgb"), ("depth", "depth_clean"), ("depth", "depth")):
        statistics_ = fitted(STREETS, "depth" if name == "rgb" else folder)[0][name]
        row = [{"depth": "depth, degraded", "depth_clean": "depth, clean"}.get(folder, folder)]
        for split in ("val", *UNSEEN):
            file = there(STREETS / folder / f"{split}.h5")
            found = unoic_cli.fit_delta({name: file}, statistics=statistics_, write_delta=scratch())
            assert found.delta is not None
            row.append(f"{found.delta['mean']:.2f}")
        rows.append(row)
    return markdown(["mean delta", "val", *UNSEEN], rows)


def factors(measure: str, condition: str) -> dict[str, Any]:
    """Delta of both networks' images from 16 passes with dropout."""
    folder, found = RUNS / "streets" / "passes", dict[str, Any]()
    how = {"origin": "mc-dropout", "measure": measure}
    for name in ("rgb", "depth"):
        own = unoic_cli.fit_delta({name: there(folder / f"{name}.val.npy")}, **how).statistics
        found[name] = str(scratch())
        passes = {name: there(folder / f"{name}.{condition}.npy")}
        unoic_cli.fit_delta(passes, statistics=own, write_delta=found[name], **how)
    return found


def dropout() -> str:
    """Delta from 16 passes with dropout beside delta of the softmax entropy, depth degraded."""
    again = RUNS / "streets" / "again"
    rows = []
    for title in ("softmax entropy", "predictive entropy", "mutual information"):
        figures = dict[float, list[list[float]]]()
        for condition in UNSEEN:
            plainly = title == "softmax entropy"
            delta = fitted(again, "depth")[0] if plainly else factors(title.replace(" ", "-"), condition)
            for lam in (0.0, 0.4):
                files = inputs(again, "depth", [condition])
                result = unoic_cli.evaluate(files, delta=delta, fusion="noisy-or", lam=lam)
                figures.setdefault(lam, []).append([100 * result.overall.values[m] for m in ("miou", "macc")])
        means = [np.mean(values, axis=0) for values in figures.values()]
        rows.append([title, *(f"{a:.2f} \\| {b:.2f}" for a, b in means)])
    return markdown(["mIoU \\| mAcc, delta from", "UNO", "UNO-IC, lambda 0.4"], rows)


# ------------------------------------------------------------------------------------------------
# Table 1 and Figure 2


def counts_of(path: Path) -> np.ndarray:
    """Training samples of each class."""
    with h5py.File(there(path)) as file:
        return np.asarray(file["source_counts"][()])


def table1() -> str:
    """Data sets and networks."""
    kinds = [
        ("two moons, circle", "R^2", RUNS / "toy" / "moons.0.val.h5", "step", "3-layer FCN, 1,200 weights"),
        ("Fashion-MNIST", "28 x 28", RUNS / "fashion" / "lt100" / "s0" / "ce.val.h5", "step / exp", "3 convolutions"),
        ("CLDR", "text", RUNS / "cldr" / "lt100" / "s0" / "ce.val.h5", "step / exp", "n-grams, 1 hidden layer"),
        ("WordNet, hypernym", "text", RUNS / "hypernym" / "ce.val.h5", "long tail", "words, 1 hidden layer"),
        ("WordNet, blank", "text", RUNS / "blank" / "ce.val.h5", "long tail", "words, 1 hidden layer"),
        ("streets", "64 x 96", STREETS / "rgb" / "val.h5", "long tail", "U-Net, 155,000 weights"),
    ]
    rows = []
    for title, size, path, kind, network in kinds:
        n = counts_of(path)
        ratio = "100 / 10" if kind == "step / exp" else f"{n.max() / n.min():,.0f}"
        rows.append([title, size, f"{len(n):,}", f"{n.max():,}", kind, ratio, network])
    return markdown(["", "dimension", "classes", "largest class", "imbalance", "ratio", "network"], rows)


def toys() -> str:
    """Figure 2 in numbers: test accuracy, five seeds; and what the curves look like on the paper's lattice."""
    rows = []
    for name in ("moons", "circle"):
        figures: list[list[float]] = []
        single = concave = 0
        for seed in range(5):
            val, test = (there(RUNS / "toy" / f"{name}.{seed}.{part}.h5") for part in ("val", "test"))
            found = unoic_cli.search_lambda(val, metric="acc", choose="best", range="0:2:0.1")
            rise = np.diff(found.curve["acc"])
            top = int(np.argmax(found.curve["acc"]))
            single += bool((rise[:top] >= 0).all() and (rise[top:] <= 0).all())
            concave += bool((np.diff(rise) <= 1e-12).all())
            figures.append([100 - error(unoic_cli.evaluate(test, **how)) for how in (
                {}, {"lam": 1.0}, {"calibration": found.calibration})] + [found.lam])  # fmt: skip
        columns = list(zip(*figures, strict=True))
        rows.append([name, *(spread(column) for column in columns), f"{single} of 5", f"{concave} of 5"])
    return markdown(["accuracy", "lambda 0", "lambda 1", "tuned", "lambda", "single-peaked", "concave"], rows)


TABLES: dict[str, Callable[[], str]] = {
    one.__name__: one
    for one in (
        table1, toys, table2, table2_same, told, table3, table4, table5, table5_more, table5_degraded,
        table5_degraded_more, summary5, lambdas5, deltas, dropout,
    )
}  # fmt: skip


def made(name: str) -> str | None:
    """A table, or None where its logits are not there."""
    try:
        return TABLES[name]()
    except LackingError as error:
        print(f"{name}: left out, as {error} is not there (README.md says what makes it)", file=sys.stderr, flush=True)
        return None


def main() -> None:
    """Print tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tables", nargs="*", metavar="TABLE", help=f"of {', '.join(TABLES)}; by default all")
    args = parser.parse_args()
    unknown = [name for name in args.tables if name not in TABLES]
    if unknown:
        parser.error(f"no table {unknown[0]}")
    for name in args.tables or TABLES:
        text = made(name)
        if text is not None:
            print(f"{name}\n\n{text}\n", flush=True)


if __name__ == "__main__":
    main()
