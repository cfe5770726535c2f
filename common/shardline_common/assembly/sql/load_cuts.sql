-- The shards of the step's result: where each begins in the order of its split. What lies before the first one belongs
-- to it too.
CREATE OR REPLACE TABLE cuts AS
SELECT
    entry[1] AS split,
    entry[2] AS number,
    CASE WHEN entry[2] = 0 THEN 0::UHUGEINT ELSE key_of(entry[6], entry[7]) END AS first_key
FROM step;
