-- The rows of one shard, or of its beginning: those of the range and the split that are in no drop list. The
-- comparison of `order` alone lets row groups be skipped. Created again for each set of sidecars.
CREATE OR REPLACE VIEW shard AS
SELECT records.*
FROM records
LEFT JOIN moved USING ("group")
ANTI JOIN drops USING (position)
WHERE status = 0
    AND "order" BETWEEN getvariable('first_order') AND getvariable('last_order')
    AND key_of("order", position) >= key_of(getvariable('first_order'), getvariable('first_position'))
    AND key_of("order", position) <= key_of(getvariable('last_order'), getvariable('last_position'))
    AND split_of(coalesce(other, "group")) = getvariable('split');
