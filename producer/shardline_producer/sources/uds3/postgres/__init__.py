"""PostgreSQL: the keyword search, metadata and bodies. The only importer of asyncpg."""
