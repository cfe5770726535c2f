-- The pairs of the step's result.
CREATE OR REPLACE TABLE edges AS
SELECT entry[1]::BIGINT AS position, entry[2]::BIGINT AS stays FROM step;
