-- The rows of the step's result are dropped.
INSERT INTO dropped
SELECT entry[1]::BIGINT, getvariable('reason')::UTINYINT, entry[2]::BIGINT FROM step;
