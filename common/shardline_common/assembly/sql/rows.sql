-- All rows in the order of the dataset.
SELECT split_of(placed_group) AS split, "order", position, size, id_hash
FROM chosen
ORDER BY split, "order", position
