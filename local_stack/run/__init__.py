"""`make run`: an embedder, a vector store and the proxy, started and stopped as one."""
