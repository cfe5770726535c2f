-- The hashes of one band that come twice, each with the first kept row that has it.
CREATE OR REPLACE TABLE firsts AS
SELECT hash, min(position) AS stays
FROM bands ANTI JOIN dropped USING (position)
WHERE band = getvariable('band')::SMALLINT
GROUP BY hash HAVING count(*) > 1;

-- Each other kept row that has the hash is paired with that first one: never all with all.
INSERT INTO edges
SELECT position, stays
FROM bands ANTI JOIN dropped USING (position) JOIN firsts USING (hash)
WHERE band = getvariable('band')::SMALLINT AND position <> stays;
