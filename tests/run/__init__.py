"""Tests of what `make` does, with real processes."""
