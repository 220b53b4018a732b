"""How large pages are, and how long a step of their slider takes: ``python benchmarks/page.py 10 150 1000 8142``.

Made-up scores of K classes with a long tail; the page is opened in Chromium (``unoic[test-page]``). A step is timed
from the event of the slider to the end of the layout.
"""

from __future__ import annotations

import pathlib
import shutil
import sys
import tempfile
import time

import h5py
import numpy as np
from playwright.sync_api import sync_playwright

import unoic_cli

UNITS = 24_000
STEP = """sorted => {
    const slider = document.getElementById("lam"), times = [];
    if (sorted) document.querySelectorAll("#classes thead button")[1].click();
    for (let i = 0; i <= Number(slider.max); i += 2) {
        slider.value = i;
        const from = performance.now();
        slider.dispatchEvent(new Event("input"));
        document.body.getBoundingClientRect();
        times.push(performance.now() - from);
    }
    times.sort((a, b) => a - b);
    return [times[times.length >> 1], times[Math.floor(0.95 * times.length)]];
}"""


def write(path: pathlib.Path, k: int) -> None:
    """Scores of a long tail."""
    rng, prior = np.random.default_rng(0), 1.0 / np.arange(1, k + 1)
    prior /= prior.sum()
    labels = np.concatenate([np.arange(k), rng.integers(0, k, UNITS - k)])
    scores = (1.5 * rng.normal(size=(UNITS, k)) + np.log(prior)).astype(np.float32)
    scores[np.arange(UNITS), labels] += 4
    with h5py.File(path, "w") as file:
        file["logits"], file["labels"] = scores, labels
        file["source_counts"] = np.maximum(1, (prior * k * 100).astype(int))


def main() -> None:
    """Print a table."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        print("classes  lambdas  bytes  made in s  ready in ms  ms a step (95 %)  sorted by recall (95 %)")
        for k in map(int, sys.argv[1:] or ["10", "150", "1000", "8142"]):
            path, page = pathlib.Path(folder, f"{k}.h5"), pathlib.Path(folder, f"{k}.html")
            write(path, k)
            for ends in ("0:2", None):
                began = time.perf_counter()
                made = unoic_cli.page(str(path), output=page, range=ends, force=True)
                seconds = time.perf_counter() - began
                tab = browser.new_page(viewport={"width": 1280, "height": 900})
                tab.goto(page.as_uri())
                tab.wait_for_selector("html[data-ready]", timeout=120_000)
                ready = tab.evaluate("performance.now()")
                plain, by_recall = tab.evaluate(STEP, False), tab.evaluate(STEP, True)
                tab.close()
                times = "  ".join(f"{one:.1f} ({most:.1f})" for one, most in (plain, by_recall))
                print(
                    f"{k}  {made.tabs[0]['n_lambdas']}  {made.n_bytes:,}  {seconds:.1f}  {ready:.0f}  {times}",
                    flush=True,
                )
        browser.close()


if __name__ == "__main__":
    main()
