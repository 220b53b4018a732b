"""Numbers that compiled kernels, their plain twins and whoever calls them agree on."""

from __future__ import annotations

from math import factorial, log

LANES = 16
"""Scores, or units, in a vector."""
SEGMENT = 16
"""Vectors of a row whose *peaks*, the largest values of each lane, are kept: what is looked for is far above most."""
COLUMN_CLASSES = 128
"""Up to so many classes, rows of scores are turned into columns; more classes fill vectors by themselves."""
TINY = 2.0**-48
"""Relative error that comparisons of float64 scores allow for."""
HUGE = 1e6
"""Scores to be fused whose largest is beyond this are shifted by it: adding lambda * s would lose digits."""
FIXED_POINT = 2.0**40
"""Scale of summed probabilities and logarithms: integers, so that any order of summation gives the same bits."""

STEP = 16
N_TIERS = 9
"""Gaps of the label reach 2**129: tier i holds those below 2**(9 + 16 i), in units of 2**(16 i - 40)."""
GAP_END = 2.0 ** (9 + STEP * (N_TIERS - 1))
GONE = 2.0**140
"""Gap of a class of probability zero: beyond all others, and its square is finite."""
HALF = 24
"""Sums are kept in two parts, of the lower `HALF` bits and of the others, so that 2**38 units do not overflow."""

LOG_SUM, MEAN_X, MEAN_V, VAR_X, COVARIANCE, VAR_V, N_MOMENTS = range(7)
"""Places of what `unoic_cli.kernels.likelihood` sums: log S, E[x], E[v], Var[x], Cov[x, v], Var[v]."""
FLUSH = 1 << 11
"""Groups of units whose numbers below 2**51 a lane adds up: they stay below 2**62."""

ROWS, EQUAL, INSIDE, ONE, CLOSER, EXP_ONE, LABELLED, AS_IS, DOWN, UP, FIRST_EQUAL, FIRST_SUM, FIRST_OUTSIDE = range(13)
"""Places of what `unoic_cli.kernels.evidence` counts: rows; those of equal scores; those inside [0, 1]; those of them
that sum to 1; rows looked at more closely; those whose exponentials sum to 1; those with a label; winners equal to the
label, to the label - 1, to the label + 1; and the places of the first row of equal scores, of the first inside [0, 1]
that does not sum to 1, and of the first that is not inside (-1: none)."""
N_COUNTED = 13

LEAST = -708.0
"""The entropy's exp of less is nothing beside S >= 1, and would not be a normal number."""
MAGIC = 1.5 * 2.0**52
"""Adding it rounds a float64 to an integer, which is then found in the low bits."""
MAGIC_BITS = 0x4338000000000000
LN2_HIGH, LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LOG2_E = 1.0 / log(2.0)
EXP = tuple(1.0 / factorial(i) for i in range(12))
"""Taylor: relative error below 1e-14 in |r| <= log(2) / 2."""
LOG = tuple(2.0 / (2 * i + 1) for i in range(9))
"""log((1 + f) / (1 - f)) / f in powers of f squared: relative error below 1e-15 in |f| <= 0.172."""
ROOT_HALF_BITS = 0x3FE6A09E667F3BCD

CHECKED = 1 << 14
"""Words of one partial checksum: 16-bit words times weights below 2**14 cannot leave 64 bits."""
