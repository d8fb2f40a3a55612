"""The cache: what was embedded before, by key.

Defines L1 (``memory``), L2 (``store``, which is Qdrant, and ``exchange``, its HTTP client for
look-ups), the queue of what is yet to be stored (``writes``), and the collector of what is too old
or too much. May import from ``upstream``, ``workers``, ``telemetry`` and ``entries``; of ``http``
it needs nothing.
"""
