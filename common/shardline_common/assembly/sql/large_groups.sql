-- Groups that near duplicates connect, and that have together over 1 % of all rows.
SELECT members, (members * 100 // all_rows)::BIGINT AS share
FROM (
    SELECT placed_group, count(*) AS members FROM chosen
    WHERE placed_group IN (SELECT other FROM moved)
    GROUP BY placed_group
), (SELECT count(*) AS all_rows FROM chosen)
WHERE members * 100 > all_rows
ORDER BY members DESC, placed_group
LIMIT 10
