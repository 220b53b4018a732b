"""Images and labels as pictures: arrays and texts in, bytes out; no file is read here."""
