"""Compiled loops over blocks of scores, each held to plain numpy by the tests. `jit` configures numba."""
