"""The upstream: TEI, one instance or many behind a balancer.

Defines what it is asked (``client``), over which connections, the batches that it takes, the model
that it serves, its instances and what they say of themselves (``probes``), the inputs that it has
in hand (``trials``), and what is sent again or refused (``suspects``). May import from ``workers``,
``telemetry`` and ``entries``.
"""
