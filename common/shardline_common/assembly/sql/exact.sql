-- Of the rows with the same content hash, the one with the smallest position stays.
WITH twice AS (
    SELECT content, min(position) AS stays FROM kept GROUP BY content HAVING count(*) > 1
)
SELECT position, '[' || position || ',' || stays || E']\n' AS line
FROM kept JOIN twice USING (content)
WHERE position <> stays
ORDER BY position
