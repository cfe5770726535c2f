"""Sources of documents: one folder for each kind of store."""
