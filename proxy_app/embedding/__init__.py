"""The rules: how inputs become embeddings, one per input and in order, or an error.

Defines a request and its answer (``request``), what it wants of the cache (``control``), the
service that looks in the caches, the flights (single flight: one computation per key), the sender
(batches for the upstream), the permits and their queue, the counts of tokens, and purges. Knows
neither HTTP nor a dialect. May import from ``cache``, ``upstream``, ``workers``, ``telemetry`` and
``entries``; of ``http`` it needs nothing.
"""
