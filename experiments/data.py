"""The data of the experiments: fetched from package registries, checked by sha256, read without being installed.

Fashion-MNIST and WordNet are Debian packages, CLDR comes with the Python package `babel`. Fetching needs `apt-get` and
`pip`; where one is missing, put the package (its name is in the error) into the folder `data` beside this file.
"""

from __future__ import annotations

import collections
import gzip
import hashlib
import io
import itertools
import re
import struct
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

HERE = Path(__file__).parent
DATA = HERE / "data"

PACKAGES = {
    "dataset-fashion-mnist": "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0",
    "wordnet-base": "61060d960f9ada8fa120872312eccd3ecebfbab8c4579e4f5a74e1cf67620752",
    "babel": "6d49734aed1d595b2c065d012174df8c83964692f26fc461702281634dd7555b",
}
"""Package: sha256 of the archive that the figures were made with."""

BABEL = "babel==2.19.0"
FASHION_NAMES = ["T-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot"]


@dataclass
class Bags:
    """Rows of hashed or numbered features: row i is `index[offset[i]:offset[i + 1]]`."""

    index: NDArray[np.int64]
    offset: NDArray[np.int64]

    @classmethod
    def of(cls, rows: list[list[int]]) -> Bags:
        """Pack lists of features; an empty one becomes feature 0."""
        filled = [row or [0] for row in rows]
        return cls(
            np.fromiter((f for row in filled for f in row), np.int64),
            np.concatenate([[0], np.cumsum([len(row) for row in filled])]),
        )

    def __len__(self) -> int:
        return len(self.offset) - 1

    def take(self, rows: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Features of these rows, one after another, and where each row begins."""
        parts = [self.index[self.offset[r] : self.offset[r + 1]] for r in rows]
        return np.concatenate(parts), np.concatenate([[0], np.cumsum([len(p) for p in parts[:-1]])]).astype(np.int64)


def archive(package: str) -> Path:
    """The package's archive in the folder `data`, downloaded where it is absent; its sha256 is checked either way."""
    DATA.mkdir(exist_ok=True)
    found = sorted([*DATA.glob(f"{package}_*.deb"), *DATA.glob(f"{package}-*.whl")])
    if not found:
        if package == "babel":
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", BABEL]
        else:
            command = ["apt-get", "download", package]
        print(f"downloading {package}", file=sys.stderr, flush=True)
        try:
            subprocess.run(command, cwd=DATA, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        except (OSError, subprocess.CalledProcessError):
            sys.exit(f"{package}: `{' '.join(command)}` failed; put the package's archive into {DATA}")
        found = sorted([*DATA.glob(f"{package}_*.deb"), *DATA.glob(f"{package}-*.whl")])
    digest = hashlib.sha256(found[-1].read_bytes()).hexdigest()
    if digest != PACKAGES[package]:
        sys.exit(f"{found[-1]}: sha256 {digest}; expected {PACKAGES[package]}, that of the experiments' figures")
    return found[-1]


def unpacked(package: str) -> Path:
    """A folder with the package's files: `data/PACKAGE`."""
    folder = DATA / package
    if not folder.exists():
        path, part = archive(package), DATA / f".{package}.part"
        if path.suffix == ".whl":
            with zipfile.ZipFile(path) as wheel:
                wheel.extractall(part)
        else:
            with tarfile.open(fileobj=io.BytesIO(payload(path.read_bytes()))) as tar:
                tar.extractall(part, filter="data")
        part.rename(folder)
    return folder


def payload(deb: bytes) -> bytes:
    """The member `data.tar.*` of a Debian package, which is an `ar` archive: headers of 60 bytes, even places."""
    at = 8
    while at < len(deb):
        name, size = deb[at : at + 16].decode().strip().rstrip("/"), int(deb[at + 48 : at + 58])
        if name.startswith("data.tar"):
            return deb[at + 60 : at + 60 + size]
        at += 60 + size + size % 2
    raise ValueError("no data.tar in the package")


def idx(path: Path) -> NDArray[np.uint8]:
    """An array in the IDX format of the MNIST family, gzipped."""
    raw = gzip.decompress(path.read_bytes())
    shape = struct.unpack(f">{raw[3]}I", raw[4 : 4 + 4 * raw[3]])
    return np.frombuffer(raw, np.uint8, offset=4 + 4 * raw[3]).reshape(shape)


def fashion() -> dict[str, Any]:
    """Fashion-MNIST (Xiao, Rasul, Vollgraf 2017; MIT): 60,000 and 10,000 images of 28 x 28, ten classes."""
    folder = next(unpacked("dataset-fashion-mnist").rglob("train-images-idx3-ubyte.gz")).parent
    images = [idx(folder / f"{part}-images-idx3-ubyte.gz") for part in ("train", "t10k")]
    labels = [idx(folder / f"{part}-labels-idx1-ubyte.gz").astype(np.int64) for part in ("train", "t10k")]
    inputs = [image.astype(np.float32)[:, None] / 255 / 0.353 - 0.81 for image in images]
    return {"train": (inputs[0], labels[0]), "test": (inputs[1], labels[1]), "class_names": FASHION_NAMES}


def texts(value: Any) -> Iterator[str]:
    """All strings in nested dictionaries and lists."""
    if isinstance(value, str):
        yield value
    elif hasattr(value, "values"):
        for part in value.values():
            yield from texts(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from texts(part)


GRAM_BUCKETS = 1 << 13


def grams(text: str) -> list[int]:
    """Hashed character n-grams, n = 1 ... 4."""
    t = f"^{text.lower()}$"
    return [zlib.crc32(t[a : a + n].encode()) % GRAM_BUCKETS for n in (1, 2, 3, 4) for a in range(len(t) - n + 1)]


def cldr() -> dict[str, Any]:
    """Unicode CLDR: the language, of 100, in which this is the name of a language, a territory or a currency.

    500 training, 100 validation and 100 test names of each; a name that several languages share counts for each.
    """
    sys.path.insert(0, str(unpacked("babel")))
    from babel import localedata

    wanted = ("languages", "territories", "scripts", "variants", "currency_names", "unit_display_names", "time_zones")
    names: dict[str, list[str]] = {}
    for language in sorted(found for found in localedata.locale_identifiers() if "_" not in found):
        raw = localedata.load(language, merge_inherited=False)
        all_names = {t for key in wanted if key in raw for t in texts(raw[key])}
        names[language] = sorted(t for t in all_names if len(t) >= 4 and any(c.isalpha() for c in t))
    top = sorted(sorted(names, key=lambda language: (-len(names[language]), language))[:100])
    top = [top[j] for j in np.random.default_rng(0).permutation(100)]
    rng = np.random.default_rng(1)
    parts: dict[str, list[tuple[list[int], int]]] = {"train": [], "test": []}
    for k, language in enumerate(top):
        order = rng.permutation(len(names[language]))
        parts["test"] += [(grams(names[language][j]), k) for j in order[:100]]
        parts["train"] += [(grams(names[language][j]), k) for j in order[100:700]]
    packed = {part: (Bags.of([row for row, _ in rows]), np.array([k for _, k in rows])) for part, rows in parts.items()}
    return {**packed, "class_names": top}


Row = tuple[list[str], int]


def numbered(train: list[Row], held_out: list[Row], least: int) -> dict[str, Any]:
    """Give a number to each feature that `least` training rows or more have; drop the others."""
    counts = collections.Counter(f for features, _ in train for f in features)
    number = {f: i + 1 for i, f in enumerate(f for f, c in counts.items() if c >= least)}
    out: dict[str, Any] = {"features": len(number) + 1}
    for part, rows in (("train", train), ("val", held_out)):
        bags = Bags.of([[number[f] for f in features if f in number] for features, _ in rows])
        out[part] = (bags, np.array([k for _, k in rows]))
    return out


def synsets(kind: str) -> Iterator[tuple[list[str], str, str]]:
    """Of each entry of WordNet 3.0 (Princeton University): its words, its definition, its hypernym's place or ""."""
    folder = next(unpacked("wordnet-base").rglob("data.noun")).parent
    with (folder / f"data.{kind}").open(encoding="latin-1") as file:
        for line in file:
            if line.startswith("  "):
                continue
            head, gloss = line.rstrip("\n").split(" | ", 1)
            fields = head.split()
            n = int(fields[3], 16)
            i = 4 + 2 * n
            pointers = fields[i + 1 : i + 1 + 4 * int(fields[i])]
            above = [pointers[j + 1] for j in range(0, len(pointers), 4) if pointers[j] in ("@", "@i")]
            yield [fields[0], *fields[4:i:2]], gloss.strip(), above[0] if above else ""


def hypernym() -> dict[str, Any]:
    """WordNet: the hypernym of a noun. Nouns above 4 others or more are the classes; 3 of each held out.

    As long a tail as language has: nothing is thinned.
    """
    nouns = {words[0]: (words[1:], gloss, above) for words, gloss, above in synsets("noun")}
    counts = collections.Counter(above for _, _, above in nouns.values() if above)
    classes = sorted((h for h, c in counts.items() if c >= 4), key=lambda h: (-counts[h], h))
    rows: dict[str, list[str]] = {h: [] for h in classes}
    for noun, (_, _, above) in nouns.items():
        if above in rows:
            rows[above].append(noun)

    def features(noun: str) -> list[str]:
        words, gloss, _ = nouns[noun]
        said = re.findall(r"[a-z]+", gloss.split(";")[0].lower())
        out = [f"g:{t}" for t in said] + [f"b:{a}_{b}" for a, b in itertools.pairwise(said)]
        out += [f"p{i}:{t}" for i, t in enumerate(said[:4])]
        for word in words:
            parts = word.lower().split("_")
            out += [f"w:{t}" for t in parts] + [f"l:{parts[-1]}"] + [f"s:{parts[-1][-n:]}" for n in (3, 4, 5)]
        return out

    rng = np.random.default_rng(0)
    train, held_out = list[Row](), list[Row]()
    for k, h in enumerate(classes):
        order = [rows[h][i] for i in rng.permutation(len(rows[h]))]
        held_out += [(features(noun), k) for noun in order[:3]]
        train += [(features(noun), k) for noun in order[3:]]
    return {**numbered(train, held_out, 2), "class_names": [nouns[h][0][0] for h in classes]}


def blank() -> dict[str, Any]:
    """WordNet: the word, of 8,142, that was taken out of a definition. iNaturalist 2018's K and sizes of classes.

    3 places of each word are held out, 24,426 in all; at most 1,000 others are for training.
    """
    entries = []
    for kind in ("noun", "verb", "adj", "adv"):
        for words, gloss, _ in synsets(kind):
            heads = [f"h:{x}" for w in words[1:] for x in w.lower().split("(")[0].split("_")]
            entries.append(([*heads, f"pos:{kind}"], re.findall(r"[a-z]+(?:'[a-z]+)?", gloss.lower())))
    counts = collections.Counter(w for _, gloss in entries for w in gloss)
    rng = np.random.default_rng(0)
    candidates = sorted(w for w, c in counts.items() if c >= 5)
    chosen = sorted((candidates[i] for i in rng.permutation(len(candidates))[:8142]), key=lambda w: (-counts[w], w))
    number = {w: k for k, w in enumerate(chosen)}
    places: dict[int, list[tuple[int, int]]] = collections.defaultdict(list)
    for i, (_, gloss) in enumerate(entries):
        for j, w in enumerate(gloss):
            if w in number:
                places[number[w]].append((i, j))

    def features(place: tuple[int, int]) -> list[str]:
        i, j = place
        heads, gloss = entries[i]
        out = [h for h in heads if h[2:] != gloss[j]]
        for o in (-4, -3, -2, -1, 1, 2, 3, 4):
            if 0 <= j + o < len(gloss):
                out.append(f"p{o}:{gloss[j + o]}")
            elif abs(o) == 1:
                out.append(f"p{o}:#")
        near = range(max(0, j - 9), min(len(gloss), j + 10))
        return out + [f"b:{gloss[t]}" for t in near if t != j and len(gloss[t]) > 3]

    train, held_out = list[Row](), list[Row]()
    for k in range(len(chosen)):
        order = [places[k][i] for i in rng.permutation(len(places[k]))]
        held_out += [(features(p), k) for p in order[:3]]
        train += [(features(p), k) for p in order[3:1003]]
    return {**numbered(train, held_out, 3), "class_names": chosen}
