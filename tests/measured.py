"""Metrics of counts by their names, for tests that compare them with formulas."""

from unoic_cli.metrics import NAMES, Counted, Rules, find


def compute(counts, name, absent="reference", ignored=()):
    return find(name, "").values(Counted(counts), Rules(absent, tuple(ignored)))


def compute_all(counts, absent="reference", ignored=()):
    return {name: compute(counts, name, absent, ignored) for name in NAMES}


def exact(counts, name, absent="reference", ignored=()):
    return find(name, "").exact(Counted(counts), Rules(absent, tuple(ignored)))
