-- Every dropped row, once, with the shard whose drop list names it: the last one of its split that begins at or
-- before the row's place in the order. `is_remainder` and `key_of` are macros; the first shard begins at key 0. In a
-- split without shards the number is 0.
WITH by_rules AS (
    SELECT "group", "order", position, id_hash, dropped.reason, stays
    FROM dropped JOIN records USING (position)
    UNION ALL
    SELECT "group", "order", position, id_hash, 4 AS reason, NULL AS stays
    FROM kept WHERE NOT in_sample(sample, position)
    UNION ALL
    SELECT "group", "order", position, id_hash, 5 AS reason, NULL AS stays
    FROM chosen WHERE is_remainder(split_of(placed_group), "order", position)
),
placed AS (
    SELECT split_of(coalesce(other, "group")) AS split, key_of("order", position) AS key, by_rules.*
    FROM by_rules LEFT JOIN moved USING ("group")
)
SELECT
    placed.split AS split,
    coalesce(number, 0) AS number,
    position,
    placed.reason AS reason,
    id_hash,
    '[' || position || ',"' || name || '",'
    || CASE WHEN stays IS NULL THEN 'null' ELSE coalesce('"' || digest || '"', stays::VARCHAR) END
    || E']\n' AS line
FROM placed
ASOF LEFT JOIN cuts ON placed.split = cuts.split AND placed.key >= cuts.first_key
JOIN reasons ON reasons.reason = placed.reason
LEFT JOIN datasets ON datasets.reason = placed.reason AND datasets.dataset = placed.stays
ORDER BY 1, 2, 3
