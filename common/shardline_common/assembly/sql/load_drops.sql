-- The positions of a drop list, whose lines are `[position,reason,of]`.
INSERT INTO drops
SELECT string_split(ltrim(line, '['), ',')[1]::BIGINT AS position
FROM read_csv(
    getvariable('drops_file'), header = false, auto_detect = false, columns = {'line': 'VARCHAR'},
    delim = E'\x01', quote = '', escape = ''
);
