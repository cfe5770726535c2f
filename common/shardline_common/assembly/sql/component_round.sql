-- One round of connected components. Labels only fall, and when none falls any more, both ends of every edge have
-- the same label: the smallest position of their component.
CREATE OR REPLACE TABLE labelled_edges AS
SELECT edges.position, edges.stays, one.label AS label_one, other.label AS label_other
FROM edges
JOIN labels AS one ON one.position = edges.position
JOIN labels AS other ON other.position = edges.stays;

-- Both ends of an edge, and the records that label them, take the smaller label. Without the second half, a long
-- chain of records would need as many rounds as it has records.
CREATE OR REPLACE TABLE lowered AS
SELECT position, min(label) AS label
FROM (
    SELECT position, label FROM labels
    UNION ALL SELECT position, label_other FROM labelled_edges WHERE label_other < label_one
    UNION ALL SELECT stays, label_one FROM labelled_edges WHERE label_one < label_other
    UNION ALL SELECT label_one, label_other FROM labelled_edges WHERE label_other < label_one
    UNION ALL SELECT label_other, label_one FROM labelled_edges WHERE label_one < label_other
)
GROUP BY position;

-- Each record takes the label of the record that labels it.
CREATE OR REPLACE TABLE next_labels AS
SELECT lowered.position, parent.label AS label
FROM lowered JOIN lowered AS parent ON parent.position = lowered.label;

-- How many labels fell.
CREATE OR REPLACE TABLE label_changes AS
SELECT count(*) AS changes FROM labels JOIN next_labels USING (position) WHERE labels.label <> next_labels.label;

DROP TABLE labels;
ALTER TABLE next_labels RENAME TO labels;
