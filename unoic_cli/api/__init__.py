"""Commands as functions, and runs that are cut, kept and spread."""
