"""Tallies: what is counted while the data streams by (see `unoic_cli.counters.Tally`). All are sums of integers."""
