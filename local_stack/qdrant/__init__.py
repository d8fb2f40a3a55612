"""The part of Qdrant's REST API the project uses, in one process, on Qdrant Edge.

Qdrant Edge is the server's own storage as a library. It holds the interpreter's lock in every call
and takes one process, so it lives here, in a process of its own, and not in the proxy's workers.
"""
