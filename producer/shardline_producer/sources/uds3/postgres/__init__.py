"""PostgreSQL: the keyword search, metadata and bodies of documents. Only this package uses asyncpg."""
