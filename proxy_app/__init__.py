"""Embedrack's proxy: an HTTP endpoint for text embeddings with a cache that never answers wrongly.

A request goes through the modules in this order: ``handlers`` (with ``tei``, the dialect),
``service``, ``keys``, ``memory`` (L1), ``flights``, ``store`` (L2), ``upstream`` and back;
``writes`` fills the store behind the reply.
"""

__version__ = "0.1.0"
