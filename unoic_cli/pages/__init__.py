"""Results as one HTML file: what it shows in, bytes out; it asks for nothing, and runs its own script alone."""
