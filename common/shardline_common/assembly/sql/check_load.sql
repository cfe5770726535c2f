-- The lines `[position,reason,of]` of all drop lists, whose files are named `<split>-<number>.jsonl`.
INSERT INTO drop_lines
SELECT
    string_split(parse_filename(filename, true), '-')[1]::UBIGINT AS split,
    string_split(parse_filename(filename, true), '-')[2]::UBIGINT AS number,
    string_split(ltrim(line, '['), ',')[1]::BIGINT AS position,
    trim(string_split(line, ',')[2], '"') AS reason
FROM read_csv(
    getvariable('drops_files'), header = false, auto_detect = false, columns = {'line': 'VARCHAR'},
    delim = E'\x01', quote = '', escape = '', filename = true
);
