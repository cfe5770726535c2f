"""ChromaDB: the vector search, and bodies where it holds them."""
