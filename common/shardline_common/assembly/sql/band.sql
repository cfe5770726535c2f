-- In one band, each kept row is paired with the first kept row that has the same hash: never all with all.
INSERT INTO edges
WITH band_rows AS (
    SELECT hash, position FROM bands ANTI JOIN dropped USING (position)
    WHERE band = getvariable('band')::SMALLINT
),
firsts AS (SELECT hash, min(position) AS stays FROM band_rows GROUP BY hash HAVING count(*) > 1)
SELECT position, stays FROM band_rows JOIN firsts USING (hash) WHERE position <> stays
