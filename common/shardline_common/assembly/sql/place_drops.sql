-- Every dropped row, once. `is_remainder` is a macro of the cuts.
DROP TABLE IF EXISTS placed_rows;

CREATE OR REPLACE TABLE placed_drops AS
WITH by_rules AS (
    SELECT "group", "order", position, id_hash, reason, stays
    FROM dropped JOIN (SELECT position, "group", "order", id_hash FROM records) USING (position)
    UNION ALL
    SELECT "group", "order", position, id_hash, 4 AS reason, NULL AS stays
    FROM kept WHERE NOT in_sample(sample, position)
    UNION ALL
    SELECT "group", "order", position, id_hash, 5 AS reason, NULL AS stays
    FROM chosen WHERE is_remainder(split_of(placed_group), "order", position)
)
SELECT split_of(coalesce(other, "group")) AS split, "order", position, reason, id_hash, stays
FROM by_rules LEFT JOIN moved USING ("group");
