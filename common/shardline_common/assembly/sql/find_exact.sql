-- The contents that come twice, with the smallest position of each.
CREATE OR REPLACE TABLE twice AS
SELECT content, min(position) AS stays FROM kept GROUP BY content HAVING count(*) > 1;

-- Of the rows with the same content, the one with the smallest position stays.
CREATE OR REPLACE TABLE repeats AS
SELECT position, stays FROM kept JOIN twice USING (content) WHERE position <> stays;
