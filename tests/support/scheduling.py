"""Which tests go to one worker of pytest-xdist together, and which go first."""

from xdist.scheduler import LoadFileScheduling

# Their tests share no fixture of the file, and each may take minutes: any worker takes the next one.
_SINGLE = ("tests/faults/", "tests/e2e/")
_SHARING = ("tests/faults/test_broker.py", "tests/faults/test_cluster.py", "tests/e2e/test_themis.py")
_FIRST = ("faults", "e2e", "simulation", "deploy", "docs", "integration", "gateway")


class SuiteScheduling(LoadFileScheduling):  # type: ignore[misc]  # pytest-xdist has no types
    """Tests of a file stay together, because they share its fixtures, except where a test stands alone."""

    def _split_scope(self, nodeid: str) -> str:
        file = nodeid.partition("::")[0]
        return nodeid if file.startswith(_SINGLE) and file not in _SHARING else file


def place(nodeid: str) -> int:
    """The place of a test in the order: long ones first, because all workers wait for the last."""
    folder = nodeid.split("/")[1] if "/" in nodeid else ""
    return _FIRST.index(folder) if folder in _FIRST else len(_FIRST)
