"""One file for each kind of plot: `unoic_cli.plots` says what it holds."""
