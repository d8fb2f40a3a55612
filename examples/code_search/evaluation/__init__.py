"""How well files of this repository are found, beside keyword search over the same chunks."""
