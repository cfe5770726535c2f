-- How many rows of a shard are before a key.
SELECT count(*)
FROM records
LEFT JOIN moved USING ("group")
ANTI JOIN drops USING (position)
WHERE status = 0
    AND "order" BETWEEN getvariable('first_order') AND getvariable('own_order')
    AND key_of("order", position) >= key_of(getvariable('first_order'), getvariable('first_position'))
    AND key_of("order", position) < key_of(getvariable('own_order'), getvariable('own_position'))
    AND split_of(coalesce(other, "group")) = getvariable('split');
