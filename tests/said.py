"""What a process says on stderr."""

from __future__ import annotations

BESIDE = ("unoic: note: ", "unoic: warning: ")
"""How lines begin that come beside a result, or before an error."""
BESIDE_BYTES = tuple(text.encode() for text in BESIDE)


def without_notes(err):
    """Lines that are no notes or warnings, as one text (or bytes): a run may say something before it fails."""
    beside = BESIDE_BYTES if isinstance(err, bytes) else BESIDE
    return err[:0].join(line for line in err.splitlines(keepends=True) if not line.startswith(beside))
