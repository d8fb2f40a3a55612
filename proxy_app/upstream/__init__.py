"""The upstream: TEI, one instance or many behind a balancer.

Defines its client, the batches that it takes, the model that it serves, its instances and what they
say of themselves (``probes``), the inputs that are on trial and those that are suspects. May import
from ``workers``, ``telemetry`` and ``entries``.
"""
