-- How many rows each group has.
CREATE OR REPLACE TABLE group_sizes AS
SELECT placed_group AS "group", count(*) AS members FROM chosen GROUP BY placed_group;
