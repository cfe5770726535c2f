-- Each group that near duplicates connect with others goes to the split of the group of their first record.
SELECT DISTINCT
    members."group" AS position,
    '[' || members."group" || ',' || first_member."group" || E']\n' AS line
FROM labels
JOIN members USING (position)
JOIN members AS first_member ON first_member.position = labels.label
WHERE members."group" <> first_member."group"
ORDER BY 1
