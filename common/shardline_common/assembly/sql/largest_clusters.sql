-- The ten largest clusters of near duplicates, with the id of their first record.
WITH largest AS (
    SELECT stays, count(*) + 1 AS members
    FROM clusters GROUP BY stays
    ORDER BY members DESC, stays LIMIT 10
)
SELECT members, id FROM largest JOIN records ON position = stays ORDER BY members DESC, stays
