-- The rows of the dataset before the remainder is cut off, each with the group that decides its split. `in_sample` is a
-- macro of the sample.
DROP TABLE IF EXISTS sample_keys;

CREATE OR REPLACE VIEW chosen AS
SELECT kept.*, coalesce(moved.other, kept."group") AS placed_group
FROM kept LEFT JOIN moved USING ("group")
WHERE in_sample(sample, position);
