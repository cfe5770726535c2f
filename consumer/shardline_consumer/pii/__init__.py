"""Personal data in texts: where it is, and the text without it. Pure functions of the text alone.

Each kind has a module of its own. Nothing depends on the versions of Python or of a library: characters stand
in frozen tables, and what a kind finds changes only with `VERSION`.
"""

from shardline_consumer.pii.finder import KINDS, VERSION, Found, find
from shardline_consumer.pii.redaction import Known, Redacted, redact

__all__ = ["KINDS", "VERSION", "Found", "Known", "Redacted", "find", "redact"]
