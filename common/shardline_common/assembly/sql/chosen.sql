-- The rows of the dataset before the remainder is cut off, each with the number of its split. `in_sample` and
-- `split_of` are macros that the rules define.
CREATE OR REPLACE VIEW chosen AS
SELECT kept.*, coalesce(moved.other, kept."group") AS placed_group
FROM kept LEFT JOIN moved USING ("group")
WHERE in_sample(sample, position);
