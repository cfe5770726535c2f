-- All rows of the dataset and of its remainder, each in its split. They are sorted by another statement: the memory of
-- joins and of a sort at once is not bounded.
CREATE OR REPLACE TABLE placed_rows AS
SELECT split_of(placed_group) AS split, "order", position, size, id_hash FROM chosen;
