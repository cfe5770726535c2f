-- The rows of one shard in their order.
SELECT file_index AS segment, "offset", size, row_hash, id_hash, words, score, "order", position
FROM shard
ORDER BY "order", position
