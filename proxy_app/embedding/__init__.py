"""The rules: how inputs become embeddings, one per input and in order, or an error.

Defines the service, what a request wants of the cache (``control``), the flights (one per key under
way), the permits and their queue, the counts of tokens, and purges. Knows neither HTTP nor a
dialect. May import from ``cache``, ``upstream``, ``workers``, ``telemetry`` and ``entries``; of
``http`` it needs nothing.
"""
