"""Drawings, one file per kind: arrays and texts in, pictures out; no file is read here."""
