"""Code search over an embeddings endpoint: index a repository, ask it in natural language."""
