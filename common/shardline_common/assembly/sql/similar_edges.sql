-- Only pairs whose signatures are similar enough stay.
CREATE OR REPLACE TABLE edges AS
SELECT position, stays FROM read_parquet(getvariable('similar_file'));
