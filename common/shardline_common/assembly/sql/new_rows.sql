-- The rows of the new dataset, as `RowDiff.add` writes them.
CREATE OR REPLACE TABLE new_rows AS SELECT id, hash, split FROM read_parquet(getvariable('files'));
