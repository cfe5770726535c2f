"""ChromaDB: the vector search, and bodies of documents."""
