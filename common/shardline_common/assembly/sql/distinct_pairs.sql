-- The pairs of all bands, each once.
CREATE OR REPLACE TABLE pairs AS SELECT DISTINCT position, stays FROM edges;
