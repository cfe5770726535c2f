"""What the benchmarks share: a corpus of 2 KB documents, and a process's own figures."""

import os
from pathlib import Path

import orjson

WORDS = "Die Baugenehmigung gilt nach Maßgabe der Satzung für das Grundstück und seine Nebenanlagen. "


def write_corpus(path: Path, count: int, sentences: int = 20) -> None:
    """Documents of 2 KB, all of which pass; with one sentence they have 200 bytes and a score of 0.4."""
    with path.open("wb") as out:
        for number in range(count):
            text = f"{number}: " + WORDS * sentences
            document = {
                "document_id": f"d/{number}",
                "title": f"Satzung {number}",
                "domain": "baurecht",
                "document_type": "satzung",
                "content": text,
            }
            out.write(orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE))


def usage(pid: int) -> tuple[float, float]:
    """CPU seconds and peak resident MiB of a process that still runs."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    ticks = os.sysconf("SC_CLK_TCK")
    status = Path(f"/proc/{pid}/status").read_text()
    peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
    return (int(fields[11]) + int(fields[12])) / ticks, int(peak.split()[1]) / 1024
