-- Texts that several kept rows have: the first two of these rows.
WITH kept AS (
    SELECT content, position, id FROM records ANTI JOIN drop_lines USING (position)
    WHERE status = 0 AND content IS NOT NULL
)
SELECT arg_min(id, position, 2)[1] AS first, arg_min(id, position, 2)[2] AS second
FROM kept
GROUP BY content
HAVING count(*) > 1
ORDER BY min(position)
LIMIT 5;
