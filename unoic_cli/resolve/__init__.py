"""From what was typed to data, calibrations and places."""
