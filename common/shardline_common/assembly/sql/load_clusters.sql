-- The records of clusters of the step's result, each with the first one of its cluster.
INSERT INTO clusters SELECT entry[1]::BIGINT, entry[2]::BIGINT FROM step;
