-- How many rows each group has, in the order of the group hashes.
SELECT "group", members FROM group_sizes ORDER BY "group"
