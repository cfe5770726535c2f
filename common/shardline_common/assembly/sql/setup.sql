-- `dropped` has every row that a rule dropped so far, `kept` all others. Rules that keep a range of keys, the
-- sample and the remainder, are not in `dropped`: they may drop nearly all rows.
CREATE TABLE dropped (position BIGINT, reason UTINYINT, stays BIGINT);

CREATE VIEW kept AS
SELECT records.* FROM records ANTI JOIN dropped USING (position) WHERE status = 0;

-- Edges lead from each near duplicate to the first record that has the same hash in a band.
CREATE TABLE edges (position BIGINT, stays BIGINT);

-- The first record of the cluster of each near duplicate.
CREATE TABLE clusters (position BIGINT, stays BIGINT);

-- Groups that are in the split of another group.
CREATE TABLE moved ("group" UBIGINT, other UBIGINT);
