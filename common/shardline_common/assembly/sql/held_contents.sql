-- The contents of the rows that the decision keeps.
SELECT content FROM records ANTI JOIN drops USING (position) WHERE status = 0
