"""The cache: what was embedded before, by key.

Defines L1 (``memory``), L2 (``store``; ``qdrant`` has Qdrant's calls, ``lookups`` the budget and
pauses of look-ups), the queue of what is yet to be stored (``writes``), and the collector of what
is too old or too much. May import from ``upstream``, ``workers``, ``telemetry``, ``net`` and
``entries``; of ``http`` it needs nothing.
"""
