-- The lines of a step's result. The last line, an object, is not one of them.
CREATE OR REPLACE VIEW step AS
SELECT line::UBIGINT[] AS entry
FROM read_csv(
    getvariable('step'), header = false, auto_detect = false, columns = {'line': 'VARCHAR'},
    delim = E'\x01', quote = '', escape = ''
)
WHERE starts_with(line, '[');
