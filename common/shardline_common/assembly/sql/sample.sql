-- The last row of a sample: the one at place `sample_rows` in the order of the sample keys.
SELECT sample, position FROM sample_keys
ORDER BY sample, position
LIMIT 1 OFFSET (getvariable('sample_rows')::BIGINT - 1)
