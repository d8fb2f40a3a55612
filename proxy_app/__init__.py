"""Embedrack's proxy: an HTTP endpoint for text embeddings with a cache that never answers wrongly.

The way of a request, folder by folder:

``http``: bytes arrive at a connection, and the fast lane (``lane``) looks at them first. It answers
a POST to ``/embed``, ``/v1/embeddings`` or ``/embeddings`` at once, by the same functions as below,
where all of its inputs, 64 at most, are in this worker's memory with what the reply tells of them.
It answers nothing else: no error; no request with ``Authorization``, ``Cache-Control``,
``Connection``, ``Content-Encoding`` or ``Expect``; no body above 256 KiB, or that is not whole in
one read (its head may come in a read before); none while another of its connection is under way;
and none at all where API keys are set. All of that goes through aiohttp: ``drain`` notes it,
``access`` looks at its key, ``bodies`` reads it within the budget.

``routes``: ``handlers`` has ``tei`` or ``openai`` read the body, and ``cache_control`` the header.
What is no embedding is answered here, or passed on to TEI (``passthrough``).

``embedding``: ``service`` makes a key of each input (``entries.keys``) and looks for it in
``cache.memory`` (L1). For each key that is not there one flight starts (``flights``), whoever else
asks for it: it looks in ``cache.store`` (L2); what is not there either waits for its turn
(``permits``).

``upstream``: ``client`` sends a batch to TEI, and ``model`` tells whether it is still the same one.

Back: the entry goes to ``cache.memory`` and to ``cache.writes``, which fills the store behind the
reply; the dialect writes the reply, ``http.reply`` sends it. ``telemetry`` counts and logs,
``workers`` shares with the other workers what all must know.

``app`` puts the parts of a worker together, ``server`` runs gunicorn around it, ``commands`` is the
command line. A folder imports only from those below it (``tests/test_rooms.py`` has the order).
"""

__version__ = "0.1.0"
