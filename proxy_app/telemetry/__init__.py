"""What the proxy shows of its work: numbers and log lines.

Defines tallies (counters, gauges, histograms of one process), the metrics made of them, samples
of their sums and what happened between two, and the log. May import ``errors`` and ``settings``
alone.
"""
