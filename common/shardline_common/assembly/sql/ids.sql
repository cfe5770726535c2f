-- Of the rows with the same id, the one with the smallest position stays. Ids are compared only where their hashes
-- are equal: a hash table of hashes is small.
WITH twice AS (SELECT id_hash FROM kept GROUP BY id_hash HAVING count(*) > 1),
candidates AS (SELECT id, position FROM kept SEMI JOIN twice USING (id_hash)),
firsts AS (SELECT position, min(position) OVER (PARTITION BY id) AS stays FROM candidates)
SELECT position, '[' || position || ',' || stays || E']\n' AS line
FROM firsts
WHERE position <> stays
ORDER BY position
