"""Make all tables again from the logits, and compare them with docs/experiments.md.

python experiments/check.py            exit code 1 where a table is another one
python experiments/check.py --write    put them into the page
"""

from __future__ import annotations

import argparse
import difflib
import re
import sys
import time
from pathlib import Path

import tables

PAGE = Path(__file__).resolve().parents[1] / "docs" / "experiments.md"
BLOCK = r"<!-- {} -->\n\n(?:((?:\|.*\n)*)\n)?<!-- end -->"
"""A table between its marks, or nothing yet."""


def main() -> int:
    """Compare, or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    parser.add_argument("tables", nargs="*", metavar="TABLE")
    args = parser.parse_args()
    wrong = 0
    for name in args.tables or tables.TABLES:
        started = time.perf_counter()
        text = tables.made(name)
        seconds = f"{time.perf_counter() - started:.0f} s"
        page = PAGE.read_text()
        found = re.search(BLOCK.format(name), page)
        if text is None:
            print(f"{name}: not made", flush=True)
        elif found is None:
            wrong += 1
            print(f"{name}: not on the page", flush=True)
        elif (found[1] or "").rstrip("\n") == text:
            print(f"{name}: {len(text.splitlines()) - 2} rows, as on the page, {seconds}", flush=True)
        elif args.write:
            page = f"{page[: found.start()]}<!-- {name} -->\n\n{text}\n\n<!-- end -->{page[found.end() :]}"
            PAGE.write_text(page)
            print(f"{name}: written, {seconds}", flush=True)
        else:
            wrong += 1
            print(f"{name}: differs", flush=True)
            sys.stdout.writelines(
                f"  {line}\n"
                for line in difflib.unified_diff(
                    (found[1] or "").splitlines(), text.splitlines(), "page", "made", "", "", 0, ""
                )
            )
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
