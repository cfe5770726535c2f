"""The screen of a terminal after a program has written to it, as lines with their colours."""

import re

_TOKEN = re.compile(r"\x1b\[(?P<arguments>[?0-9;]*)(?P<command>[A-Za-z])|\r?\n|\r|[^\x1b\r\n]+")


def shown_lines(written: str) -> list[str]:
    """Replay what a program wrote and return the lines of the screen, colour sequences included.

    Supports the sequences of Rich: text, colours, line ends, cursor up, erase line, show and hide the cursor.

    Raises:
        ValueError: another control sequence was written.
    """
    lines, row, returned = [""], 0, False
    for token in _TOKEN.finditer(written):
        text, command = token.group(), token["command"]
        if text in ("\n", "\r\n"):
            row, returned = row + 1, False
            if row == len(lines):
                lines.append("")
        elif text == "\r":
            returned = True
        elif command == "A":
            row = max(0, row - int(token["arguments"] or 1))
        elif command == "K":
            lines[row] = ""
        elif command in ("h", "l"):
            continue
        elif command not in ("m", None):
            raise ValueError(f"the control sequence {text!r} is not known")
        else:
            # A carriage return without an erase: the new text replaces the old line.
            lines[row] = text if returned else lines[row] + text
            returned = False
    return lines
