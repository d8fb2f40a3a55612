"""``embedrack load-test``: requests at an endpoint, as fast as they are answered or on schedule.

The command (``command``) makes a ``plan`` and a ``mix`` of texts; ``run`` sends, ``replies`` judges
what comes back, ``tally`` keeps the figures, ``report`` and ``plot`` show them. The workers of the
proxy import nothing of this.
"""
