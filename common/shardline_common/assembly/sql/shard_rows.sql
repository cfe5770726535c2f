-- The rows of one shard in their order: those of its range and its split that are in no drop list. The comparison of
-- `order` alone lets row groups be skipped.
SELECT file_index AS segment, "offset", size, row_hash, id_hash, words, score, "order", position
FROM records
LEFT JOIN moved USING ("group")
ANTI JOIN drops USING (position)
WHERE status = 0
    AND "order" BETWEEN getvariable('first_order') AND getvariable('last_order')
    AND key_of("order", position) >= key_of(getvariable('first_order'), getvariable('first_position'))
    AND key_of("order", position) <= key_of(getvariable('last_order'), getvariable('last_position'))
    AND split_of(coalesce(other, "group")) = getvariable('split')
ORDER BY "order", position
