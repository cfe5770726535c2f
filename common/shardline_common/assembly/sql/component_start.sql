-- Each record with an edge begins as a component of its own: its label is its position.
CREATE OR REPLACE TABLE labels AS
SELECT position, position AS label
FROM (SELECT position FROM edges UNION SELECT stays FROM edges)
