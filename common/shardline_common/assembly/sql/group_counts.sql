-- How many rows each group has, in the order of the group hashes.
SELECT placed_group AS "group", count(*) AS members FROM chosen GROUP BY placed_group ORDER BY placed_group
