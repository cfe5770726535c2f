-- The hashes of ids that come twice, and the records that have one of them. A statement does one heavy thing alone: the
-- memory of several at once is not bounded.
CREATE OR REPLACE TABLE twice AS
SELECT id_hash FROM kept GROUP BY id_hash HAVING count(*) > 1;

CREATE OR REPLACE TABLE candidates AS
SELECT id, position FROM kept SEMI JOIN twice USING (id_hash);

-- Of the rows with the same id, the one with the smallest position stays.
CREATE OR REPLACE TABLE repeats AS
SELECT position, stays
FROM (SELECT position, min(position) OVER (PARTITION BY id) AS stays FROM candidates)
WHERE position <> stays;
