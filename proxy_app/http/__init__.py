"""The connections of clients: how bytes become a request, and a reply becomes bytes.

Defines the fast lane, the short cut past aiohttp's router, bodies and their budget, who has access,
TLS, replies, the headers for browsers (``cors``), and how connections end (``drain``). May import
from ``workers``, ``telemetry`` and ``entries``.
"""
