"""ChromaDB: the vector search, and the bodies of documents if it has them."""
