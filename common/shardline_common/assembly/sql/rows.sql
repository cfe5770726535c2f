-- All rows in the order of the dataset.
SELECT split, "order", position, size, id_hash FROM placed_rows ORDER BY split, "order", position
