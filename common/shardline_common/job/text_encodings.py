"""The encodings of texts that a job may name: the codecs of Python that are character encodings."""

import codecs
from encodings.aliases import aliases

from shardline_common.job.field_faults import did_you_mean

# Codecs between texts and bytes that are no encodings of a file: escapes, names of hosts, those of the
# machine, and the one that always fails. The codecs between bytes and bytes are in `aliases` too.
_NO_ENCODINGS = {
    "idna",
    "mbcs",
    "oem",
    "palmos",
    "punycode",
    "raw_unicode_escape",
    "tactis",
    "undefined",
    "unicode_escape",
    "base64_codec",
    "bz2_codec",
    "hex_codec",
    "quopri_codec",
    "rot_13",
    "uu_codec",
    "zlib_codec",
}
_KNOWN = {name: codec for name, codec in aliases.items() if codec not in _NO_ENCODINGS}
_MODULES = set(_KNOWN.values()) | {"cp874", "cp720", "cp737", "cp856", "cp875", "cp1006", "koi8_t", "koi8_u"}


def canonical_encoding(name: str) -> str:
    """The name of Python's codec for the name of an encoding.

    Raises:
        ValueError: there is no such encoding of texts; the message names one that is alike.
    """
    form = name.strip().lower().replace("-", "_").replace(" ", "_").replace(".", "_")
    module = _KNOWN.get(form, form)
    if module == "utf_8_sig":
        module = "utf_8"
    if module not in _MODULES:
        near = did_you_mean(name, [*_KNOWN, *_MODULES])
        raise ValueError(
            "this is no encoding of texts"
            + (f"; did you mean `{near}`?" if near else ", such as utf-16 or cp1252")
        )
    return codecs.lookup(module).name
