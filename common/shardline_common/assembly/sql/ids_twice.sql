-- A few of the ids that come twice.
SELECT DISTINCT id FROM records JOIN step ON position = entry[1]::BIGINT ORDER BY id LIMIT 3
