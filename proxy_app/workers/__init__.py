"""What the workers of one server have in common: files in a folder that all of them share.

Defines the folder itself, locks on such files, the ledger (each worker's numbers, and those of
workers that ended), the history (the last quarter of an hour), the totals (one worker's part in
both) and the log of purges. May import from ``telemetry`` and ``entries``.
"""
