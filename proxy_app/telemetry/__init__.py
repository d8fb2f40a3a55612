"""What is told of the proxy's work: numbers and log lines.

Defines tallies (counters, gauges, histograms of one process), the metrics made of them, the history
of the last quarter of an hour, and the log. May import ``errors`` and ``settings`` alone.
"""
