"""The table of docs/proof.md: every kind of object and field that `verify` covers."""

from tools.proof_fields import FIELDS, WHOLE

_COVERED_BY = {
    "data/<split>/part-…": "the chain record, by rows and by stored bytes; `objects` of the manifest",
    "rejected/part-…": "the chain record, by reasons and by stored bytes; `objects` of the manifest",
    "dead-letters/part-…": "the chain record, by reasons and by stored bytes; `objects` of the manifest",
    "_state/plan/<page>.json": "`objects` of the manifest",
    "_state/plan.json": "`objects` of the manifest, which is built from it again",
    "_state/chain/<partition>/<sequence>.json": "`objects` of the manifest; the digest; its own sums",
    "_state/outcome-<attempt>.json": "`_SUCCESS`; the manifest is built from it again",
    "manifest.json": "`_SUCCESS`; all fields but four follow from the other objects",
    "README.md": "`_SUCCESS`",
    "_SUCCESS": "its own form; the digest; the signature, if there is one",
}

PROOF_TEXT = """## What verify does

`verify` reads every object of a dataset and fails if any of them was changed, added or taken away:

1. It walks the [chain](glossary.md#chain) of each partition, and reads every shard, every file of
   rejected documents and of dead letters: the stored bytes, and what gzip and zstandard make of
   them. Members and frames that were appended, bytes behind the end, and an end that is missing
   are found.
2. It checks every row against the columns, counts rows, reasons and bytes, and recomputes the
   digest.
3. It builds the manifest again from job, plan, outcome and chains, and names the fields that
   differ.
4. It compares manifest, card and outcomes with `_SUCCESS`, and the list of the folder with all
   that was named.

The digest covers the rows and their order. It does not depend on stored bytes, which another
version of a compressor writes otherwise: these have hashes of their own, in the chain and in the
manifest.

## What it cannot exclude

Somebody who can write to the store can forge a dataset and recompute every hash in it. Two things
exclude that:

- **A digest that is kept elsewhere**, for example in the notes of a training: `shardline verify
  URI --digest DIGEST`. It protects rows, order, splits and counts. The webhook's notification has
  the digest, and `verify` prints it.
- **A signature.** With `SHARDLINE_SIGNING_KEY` (or `SHARDLINE_SIGNING_KEY_FILE`) `_SUCCESS` ends
  with an Ed25519 signature of everything before it, and `shardline verify URI --key public.pem`
  requires it. Give the key to all producers and workers. Make a pair with

  ```sh
  openssl genpkey -algorithm ed25519 -out private.pem
  openssl pkey -in private.pem -pubout -out public.pem
  ```

Four fields of the manifest decide no row and follow from nothing else: `job.job_id`,
`job.submitted_by`, `job.purpose` and `job.labels`. Only `_SUCCESS` and a signature cover them.

## Datasets of version 0.1

They still verify, by the rules of their time, and `verify` says what these do not cover: the card,
the rejected documents, the outcome and the plan, objects that were added, and the fields of the
manifest that say who made the dataset, when and why. The manifest has `"version": 1` then. From
version 2 on it has the list `objects`.

A forger can write a dataset of version 2 as one of version 1, with a `_SUCCESS` of one line, and
loses the proof of these objects with it. `verify` says so in a note; `--key` refuses it. Where
chain records or `_SUCCESS` have hashes, these are checked, whatever the version of the manifest.

## Objects and fields

A test changes each of these, and sees `verify` fail.

"""


def proof_table() -> str:
    """Return the kinds of objects and what covers them, then the fields of each JSON object."""
    lines = ["| object | covered by |", "|---|---|"]
    lines += [f"| `{kind}` | {_COVERED_BY[kind]} |" for kind in (*FIELDS, *WHOLE)]
    for kind, names in FIELDS.items():
        lines += ["", f"### {kind}", "", *_wrapped([f"`{name}`" for name in names])]
    return "\n".join(lines) + "\n"


def _wrapped(words: list[str]) -> list[str]:
    lines, line = [], ""
    for word in words:
        if line and len(line) + len(word) + 2 > 98:  # noqa: PLR2004 - the width of the pages
            lines.append(line + ",")
            line = word
        else:
            line = f"{line}, {word}" if line else word
    return [*lines, line]
