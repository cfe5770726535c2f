-- How many rows a shard has up to and with the last one of the range.
SELECT count(*) FROM shard;
