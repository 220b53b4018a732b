"""From files to batches, and what a command may ask for."""
