"""What `make run` starts beside the proxy, and what starts it: no part of a deployment."""
