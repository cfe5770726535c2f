-- The rows that a rule drops, each with what stays instead.
SELECT position, '[' || position || ',' || stays || E']\n' AS line
FROM repeats
ORDER BY position
