-- The groups of the step's result.
INSERT INTO moved SELECT entry[1], entry[2] FROM step;
