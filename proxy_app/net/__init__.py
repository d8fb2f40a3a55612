"""HTTP as a client: what the cache and the upstream are asked over.

Defines a request and its reply over a kept connection. Knows nothing of the proxy.
"""
