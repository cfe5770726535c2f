"""UDS3 as a source: PostgreSQL, ChromaDB, Neo4j and CouchDB, whichever are there."""
