"""What other caching proxies make of the same requests: ``python -m bench.peers``."""
