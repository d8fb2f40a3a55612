"""What is cached: an embedding and its name.

Defines the key of an input, the entry, the vector as text (``vectors``) and as ``float32``, and the
name of a collection. May import ``errors`` and ``settings`` alone.
"""
