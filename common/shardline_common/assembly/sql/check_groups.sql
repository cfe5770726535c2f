-- Groups that the list of moved groups puts into several splits.
SELECT "group"
FROM (SELECT "group", split_of(other) AS split FROM moved)
GROUP BY "group"
HAVING count(DISTINCT split) > 1
ORDER BY "group"
LIMIT 5;
