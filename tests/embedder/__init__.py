"""Tests of the embedder that stands in for TEI."""
