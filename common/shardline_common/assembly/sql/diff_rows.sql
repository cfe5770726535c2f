-- The documents of two datasets, by what became of them. A document may have several rows: rows of one id are
-- compared by their number and the sum of their hashes.
CREATE OR REPLACE TABLE compared AS
WITH
    old AS (
        SELECT id, count(*) AS rows, sum(hash::HUGEINT) AS content, min(split) AS low, max(split) AS high
        FROM old_rows GROUP BY id
    ),
    new AS (
        SELECT id, count(*) AS rows, sum(hash::HUGEINT) AS content, min(split) AS low, max(split) AS high
        FROM new_rows GROUP BY id
    )
SELECT
    coalesce(old.id, new.id) AS id,
    CASE
        WHEN old.id IS NULL THEN 'added'
        WHEN new.id IS NULL THEN 'removed'
        WHEN old.rows <> new.rows OR old.content <> new.content THEN 'changed'
        WHEN old.low <> new.low OR old.high <> new.high THEN 'moved'
        ELSE 'same'
    END AS kind
FROM old FULL OUTER JOIN new ON old.id = new.id;
