"""One file for each command: its options, its steps, its result."""
