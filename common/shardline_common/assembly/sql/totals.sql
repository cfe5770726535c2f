-- What the sidecars hold, to compare it with what the chains say; and how many rows lack a value that a rule needs.
SELECT
    status,
    coalesce(reason, '') AS reason,
    count(*) AS records,
    (sum(id_hash) % 18446744073709551616)::UBIGINT AS hash_sum,
    coalesce(sum(size), 0) AS bytes,
    count(*) FILTER (size IS NULL) AS without_size,
    count(*) FILTER (content IS NULL) AS without_content,
    count(*) FILTER (sample IS NULL) AS without_sample
FROM records
GROUP BY ALL
ORDER BY ALL
