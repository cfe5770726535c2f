-- One part of the pairs, with the signature of the one record. That of the other is joined by another statement: the
-- memory of two joins at once is not bounded.
CREATE OR REPLACE TABLE signed_pairs AS
SELECT position, stays, signature
FROM (SELECT position, stays FROM pairs WHERE position % getvariable('parts')::BIGINT = getvariable('part')::BIGINT)
JOIN signatures USING (position);
