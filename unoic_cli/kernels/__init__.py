"""Compiled loops over blocks of scores. Each kernel is held to plain numpy by the tests; numba is configured in `jit`."""
