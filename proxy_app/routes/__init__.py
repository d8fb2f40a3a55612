"""The routes: which path is answered by whom, and how a request and its reply are written.

Defines the handlers, the two dialects (``tei``, ``openai``), the administrator's routes, the status
page, the OpenAPI document, what is passed on to TEI, and how ``Cache-Control`` is read. May import
from ``embedding``, ``cache``, ``upstream``, ``http``, ``workers``, ``telemetry`` and ``entries``.
"""
