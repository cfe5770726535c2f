-- The pairs of all bands, each once and with the signatures of both.
SELECT pairs.position, pairs.stays, one.signature AS one, other.signature AS other
FROM (SELECT DISTINCT position, stays FROM edges) AS pairs
JOIN signatures AS one ON one.position = pairs.position
JOIN signatures AS other ON other.position = pairs.stays
