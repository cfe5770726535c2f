-- Every dropped row in the order of the dataset. Lines are made of the sorted numbers: to sort the lines takes twice the
-- memory.
WITH sorted AS (FROM placed_drops ORDER BY split, "order", position)
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
