"""Results as people read them: tables on a terminal, tab-separated values."""
