-- The record at a position of the source.
SELECT position, id, status, reason, value, threshold, "order", split_of(coalesce(other, "group")) AS split
FROM records LEFT JOIN moved USING ("group")
WHERE position = getvariable('position')::BIGINT;
