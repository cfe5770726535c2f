-- Every dropped row, once, in the order of the dataset. `is_remainder` is a macro of the cuts. Lines are made of the
-- sorted numbers: to sort the lines takes twice the memory.
WITH by_rules AS (
    SELECT "group", "order", position, id_hash, reason, stays
    FROM dropped JOIN (SELECT position, "group", "order", id_hash FROM records) USING (position)
    UNION ALL
    SELECT "group", "order", position, id_hash, 4 AS reason, NULL AS stays
    FROM kept WHERE NOT in_sample(sample, position)
    UNION ALL
    SELECT "group", "order", position, id_hash, 5 AS reason, NULL AS stays
    FROM chosen WHERE is_remainder(split_of(placed_group), "order", position)
),
sorted AS (
    SELECT split_of(coalesce(other, "group")) AS split, "order", position, reason, id_hash, stays
    FROM by_rules LEFT JOIN moved USING ("group")
    ORDER BY split, "order", position
)
SELECT
    split, "order", position, reason, id_hash,
    '[' || position || ',"' || getvariable('reasons')[reason + 1] || '",'
    || CASE
        WHEN stays IS NULL THEN 'null'
        WHEN reason = 2 THEN '"' || getvariable('datasets')[stays + 1] || '"'
        ELSE stays::VARCHAR
    END
    || E']\n' AS line
FROM sorted
