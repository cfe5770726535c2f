"""CouchDB: the bodies of documents."""
