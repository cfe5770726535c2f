"""The collector of cyclic garbage, for a process that works on many documents."""

import gc

# Python's own are 700 objects and 10 rounds. A batch of documents has thousands of objects, none in a cycle.
_YOUNG, _ROUNDS = 20_000, 20


def collect_seldom() -> None:
    """Collect less often, and never look at what is loaded now.

    A command calls it before it imports what it needs: an import makes thousands of objects that stay, and
    the searches among them take a tenth of its start. Called again when the process has started, it leaves
    out what was imported. Without it, every second batch of documents is searched for cycles, and everything
    that was imported with it. The process keeps a few MiB of garbage more.
    """
    gc.freeze()
    gc.set_threshold(_YOUNG, _ROUNDS, _ROUNDS)
