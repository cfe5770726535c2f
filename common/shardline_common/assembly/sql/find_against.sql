-- A row whose content another dataset has is dropped, and names the first of the datasets that has it.
CREATE OR REPLACE TABLE twice AS
SELECT content, min(dataset) AS stays FROM against GROUP BY content;

CREATE OR REPLACE TABLE repeats AS
SELECT position, stays FROM kept JOIN twice USING (content);
