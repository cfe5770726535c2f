-- A row whose content another dataset has is dropped, and names the first of the datasets that has it.
SELECT position, '[' || position || ',' || min(dataset) || E']\n' AS line
FROM kept JOIN against USING (content)
GROUP BY position
ORDER BY position
