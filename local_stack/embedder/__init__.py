"""A text embedder on the CPU that speaks the HTTP of text-embeddings-inference (TEI) 1.9."""
