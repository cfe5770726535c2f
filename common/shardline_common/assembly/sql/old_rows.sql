-- The rows of the old dataset, as `RowDiff.add` writes them.
CREATE OR REPLACE TABLE old_rows AS SELECT id, hash, split FROM read_parquet(getvariable('files'));
