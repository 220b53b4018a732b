"""What a process says on stderr."""

from __future__ import annotations


def without_notes(err):
    """Lines that are no notes, as one text (or bytes): a run may say that it compiles kernels before it fails."""
    note = b"unoic: note: " if isinstance(err, bytes) else "unoic: note: "
    return err[:0].join(line for line in err.splitlines(keepends=True) if not line.startswith(note))
