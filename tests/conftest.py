"""The same examples in every run; ``UNOIC_FUZZ=1`` looks for new ones."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("repeatable", derandomize=True)
if not os.environ.get("UNOIC_FUZZ"):
    settings.load_profile("repeatable")
