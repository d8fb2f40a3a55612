"""Embedrack's proxy: an HTTP endpoint for text embeddings with a cache that never answers wrongly.

The way of a request, folder by folder:

``http``: bytes arrive at a connection, and the fast lane (``lane``) looks at them first. It asks a
route for a reply to a POST to ``/embed``, ``/v1/embeddings`` or ``/embeddings``, and the route
gives one where it need not wait: where all inputs, 64 at most, are in this worker's memory with all
that the reply says of them, or where the body is wrong. The lane asks for no other request: none
whose head is not in the plainest form (``heads``), with ``Cache-Control``, ``Connection``,
``Content-Encoding`` or ``Expect``, or without a good API key where one is needed (``access``); none
with a body above 256 KiB, or that is not whole in one read (its head may come in a read before);
none while another of its connection is under way. All of that goes through aiohttp, with what the
lane has parsed of the body: ``shortcut`` refuses heads that aiohttp should not accept, ``drain``
notes the request, ``access`` looks at its key, ``bodies`` reads it within the budget.

``routes``: ``embeddings`` answers on both ways, by the same functions. It has ``tei`` or ``openai``
read the body, and on aiohttp's way ``cache_control`` the header. What is no embedding is answered
by ``handlers``, or passed on to TEI (``passthrough``).

``embedding``: ``service`` makes a key of each input (``entries.keys``) and looks for it in
``cache.memory`` (L1); the fast lane goes no further. For each key that is not there one flight
starts (``flights``), however many requests ask for it: it looks in ``cache.store`` (L2). What is
not there either is split into batches (``sender``), which wait in the queue for the upstream
(``permits``).

``upstream``: ``client`` sends a batch to TEI, and ``model`` tells whether it is still the same one.

Back: the entry goes to ``cache.memory`` and to ``cache.writes``, which fills the store behind the
reply; the dialect writes the reply, ``routes.account`` counts and logs the request (``telemetry``),
``http.reply`` sends it. ``workers`` shares with the other workers what all must know.

``app`` puts the parts of a worker together, ``server`` runs gunicorn around it, ``commands`` is the
command line. A folder imports only from those below it (``tests/test_rooms.py`` has the order).
"""

__version__ = "0.1.0"
