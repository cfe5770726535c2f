-- The pairs of all bands, each once.
SELECT DISTINCT position, '[' || position || ',' || stays || E']\n' AS line
FROM edges
ORDER BY position, line
