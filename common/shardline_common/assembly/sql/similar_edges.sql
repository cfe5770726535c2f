-- Only pairs whose signatures are similar enough stay.
DROP TABLE signed_pairs;
DROP TABLE pairs;

CREATE OR REPLACE TABLE edges AS
SELECT position, stays FROM read_parquet(getvariable('similar_file'));
