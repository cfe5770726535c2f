-- How many records of clusters are not kept rows.
SELECT count(*)
FROM (SELECT position FROM clusters UNION SELECT stays FROM clusters) ANTI JOIN kept USING (position)
