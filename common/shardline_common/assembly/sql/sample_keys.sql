-- The sample keys of all kept rows. They are sorted by another statement: the memory of a join and of a sort at once is
-- not bounded.
CREATE OR REPLACE TABLE sample_keys AS SELECT sample, position FROM kept;
