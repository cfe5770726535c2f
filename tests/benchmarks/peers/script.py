"""The naive script: `script.py INPUT OUTPUT`. Decode, score, encode, write; it guarantees nothing."""

import sys
from pathlib import Path

import orjson
from task import encoded, row


def main() -> None:
    """Turn the documents of a JSONL file into rows."""
    with Path(sys.argv[1]).open("rb") as lines, Path(sys.argv[2]).open("wb") as out:
        for line in lines:
            found = row(orjson.loads(line))
            if found is not None:
                out.write(encoded(found))


if __name__ == "__main__":
    main()
