-- Each record that is not the first of its component, with that first record.
SELECT position, '[' || position || ',' || label || E']\n' AS line
FROM labels
WHERE position <> label
ORDER BY position
