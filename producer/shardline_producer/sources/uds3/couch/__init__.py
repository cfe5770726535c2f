"""CouchDB: the store of document bodies."""
