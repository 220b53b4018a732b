"""Tallies: what is counted while the data streams by. One file each; all are sums of integers.

A tally has
    needs: frozenset of block fields ("scores", "labels")
    fresh() -> a tally of the same kind with nothing counted, for another thread
    update(batch) -> None
    add(other) -> None, exact and in any order
"""
