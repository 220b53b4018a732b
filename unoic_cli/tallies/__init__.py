"""Tallies: what is counted while the data streams by (see `unoic_cli.tallies.tally`). All are sums of integers."""
