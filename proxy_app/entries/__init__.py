"""What is cached: an embedding and its name.

Defines the key of an input, the entry, the vector as text (``vectors``) and as ``float32``, the
identity of the model that made it, and the name of a collection. May import ``errors`` and
``settings`` alone.
"""
