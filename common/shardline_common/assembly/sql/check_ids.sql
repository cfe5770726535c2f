-- Ids that several kept rows have.
SELECT id
FROM (SELECT id, position FROM records ANTI JOIN drop_lines USING (position) WHERE status = 0)
GROUP BY id
HAVING count(*) > 1
ORDER BY min(position)
LIMIT 5;
