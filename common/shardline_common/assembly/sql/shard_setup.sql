-- Groups that are in the split of another group.
CREATE TABLE moved ("group" UBIGINT, other UBIGINT);

-- The rows that the decision drops in the range of the shard.
CREATE TABLE drops (position BIGINT);
