-- The pairs of all bands, each once.
SELECT position, '[' || position || ',' || stays || E']\n' AS line
FROM (SELECT DISTINCT position, stays FROM edges)
ORDER BY position, stays
