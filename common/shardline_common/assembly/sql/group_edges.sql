-- Edges for clusters of groups: those of near duplicates, and from each of their records to the first of its group.
CREATE OR REPLACE TABLE members AS
SELECT position, "group"
FROM records
SEMI JOIN (SELECT position FROM clusters UNION SELECT stays FROM clusters) USING (position);

CREATE OR REPLACE TABLE edges AS
SELECT position, stays FROM clusters
UNION ALL
SELECT position, stays
FROM (SELECT position, min(position) OVER (PARTITION BY "group") AS stays FROM members)
WHERE position <> stays;
