"""UDS3 as a source: a scan of PostgreSQL, or a search over PostgreSQL, ChromaDB, Neo4j and CouchDB."""
