-- How many rows the drop lists drop by each reason, and the sum of their id hashes.
SELECT reason, count(*) AS records, (sum(id_hash) % 18446744073709551616)::UBIGINT AS hash_sum
FROM (SELECT DISTINCT position, drop_lines.reason AS reason FROM drop_lines)
JOIN (SELECT position, id_hash FROM records WHERE status = 0) USING (position)
GROUP BY ALL
ORDER BY ALL;
