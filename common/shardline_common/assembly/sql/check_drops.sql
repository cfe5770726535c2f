-- Drops that no decision has: of a record that is no row, of a row for the second time, or of a row that belongs to
-- another shard. A drop belongs to the last shard of its split that begins at or before the row; before the first
-- shard, and in a split without shards, the number is that of the first one.
WITH lines AS (
    SELECT *, row_number() OVER (PARTITION BY position ORDER BY split, number) AS time FROM drop_lines
),
placed AS (
    SELECT
        lines.*,
        rows.position IS NOT NULL AS is_row,
        split_of(coalesce(other, rows."group")) AS own_split,
        key_of(rows."order", rows.position) AS key
    FROM lines
    LEFT JOIN (SELECT * FROM records WHERE status = 0) AS rows USING (position)
    LEFT JOIN moved ON moved."group" = rows."group"
),
keyed AS (SELECT split, number, key_of("order", position) AS first_key FROM starts)
SELECT placed.split, placed.number, position, is_row, time > 1 AS again
FROM placed
ASOF LEFT JOIN keyed ON placed.own_split = keyed.split AND placed.key >= keyed.first_key
WHERE NOT is_row OR time > 1 OR placed.split <> own_split OR placed.number <> coalesce(keyed.number, 0)
ORDER BY position, placed.split, placed.number
LIMIT 5;
