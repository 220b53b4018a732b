"""One function for each command: the public Python API."""
