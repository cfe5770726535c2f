-- The lines of all drop lists, with the shard whose list they are in.
CREATE TABLE drop_lines (split UBIGINT, number UBIGINT, position BIGINT, reason VARCHAR);

-- Where each shard begins, in its split.
CREATE TABLE starts (split UBIGINT, number UBIGINT, "order" UBIGINT, position BIGINT);

-- Groups that are in the split of another group.
CREATE TABLE moved ("group" UBIGINT, other UBIGINT);
