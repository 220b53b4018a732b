"""Steps that are answered from the files as they are: what commands ask for, one by one."""

from __future__ import annotations

from unoic_cli.calibrations import prior as priors
from unoic_cli.data import dataset, steps
from unoic_cli.runs import driver


def sweep(data, tallies, *, n_threads=None, progress=None, **how):
    """One pass."""
    driver.drive(steps.count(data, tallies, **how), threads=n_threads, progress=progress)


def open_dataset(*args, **kwargs):
    """A data set."""
    return driver.drive(dataset.open_dataset(*args, **kwargs))


def open_modalities(*args, **kwargs):
    """Several modalities."""
    return driver.drive(dataset.open_modalities(*args, **kwargs))


def read_prior_file(*args):
    """A prior."""
    return driver.drive(priors.read_prior_file(*args))
