-- All records with an id. The comparison of `order` lets row groups be skipped.
SELECT position, id, status, reason, value, threshold, "order", split_of(coalesce(other, "group")) AS split
FROM records LEFT JOIN moved USING ("group")
WHERE id = getvariable('ids')[1] AND "order" = getvariable('own_order')
ORDER BY position;
