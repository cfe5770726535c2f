"""docs/filters.md: how filters work, the presets as tables, and each filter with its parameters."""

from collections.abc import Mapping
from typing import Any

import orjson
from pydantic import ValidationError
from pydantic_core import PydanticUndefined

from shardline_common.curation.filter import AnyFilterKind
from shardline_common.curation.presets import PRESETS
from shardline_common.curation.registry import filter_names, load_filter
from shardline_common.job.filters import PII, REPAIR
from tools.schema_pages import type_text, wrapped

PURPOSE = """How a job drops documents by their text: presets, each filter with its parameters, and a filter
of your own. For those who write jobs, and for developers of filters."""

INTRODUCTION = """## Filters of a job

`quality.preset` names a set of filters for a kind of text, and `quality.filters` adds others. A filter
that the preset has too replaces the preset's parameters one by one; a parameter that is `null` is off.

```json
{
  "job_id": "laws-2026",
  "name": "laws",
  "source": {"type": "files", "paths": ["laws/*.jsonl.zst"]},
  "quality": {
    "preset": "legal-de",
    "filters": [{"name": "length", "min_words": 20}],
    "keep_rejected": true
  }
}
```

With a preset other than `clara`, `min_score` is 0 unless the job gives it: Clara's score is one of
length and metadata, and would drop most of what a preset keeps.

A document passes in this order, and the first bound that does not hold drops it:

- encoding damage is repaired, where `quality.repair` is `ftfy`;
- personal data is replaced, where `pii` of the job is `redact`;
- `empty`, then `below_min_score`, as in every job;
- personal data, where `pii` is `reject`;
- the filters of the preset, in the order of its table;
- those of `quality.filters`, in the order of the job.

Duplicates, order and splits of an [assembled dataset](assembled.md) come behind that.

**Reasons.** Each filter has rules, and each rule one reason: `length.too_few_words` is the rule
`too_few_words` of the filter `length`. The reasons of a job are a closed list, which is in its plan and
its manifest. `rejected/` has the value that was measured, and the bound, of each document; `preview`
shows the same beforehand, and `explain` of an assembled dataset afterwards.

**The same rows everywhere.** `run`, workers, `preview`, streams, exports and `shardline.clara` judge by
the same code. The plan of a job holds the version of each filter with all its parameters, the versions
of the libraries that it uses, and the sha256 of its files. A worker whose filters are others takes no
part in the job: it says so in its log, in `status` and in the metric `shardline_job_left_alone`. `run`
ends with exit code 2, and a run with the right version continues. Filters of Shardline use frozen tables
of one Unicode version, and no library, so they give the same rows with the next Python.

**Files.** A filter may name a file by an address as those of a source: a path, which starts from the
working directory of a `run` and from `FILES_ROOT` of a producer or worker, or `s3://bucket/key`. The
producer reads it when it plans the job, and each worker before it judges; a file that has changed since
fails the job with `source_changed`. Jobs of the gateway may name files only where they may read sources.

**Cost.** A job without filters is judged by the facts of its messages alone: its rows are never parsed.

"""

OWN = """## A filter of your own

A filter is a pure function of a document. It measures a value, and Shardline compares the value with the
bound that the job gives; so a preview can show how values are spread. Put this into a module of a package:

```python
from pydantic import BaseModel, ConfigDict, Field

from shardline_common.curation.filter import FilterKind, Rule


class Paragraphs(BaseModel):
    \"\"\"The paragraphs of a text, which empty lines divide.\"\"\"

    model_config = ConfigDict(extra="forbid", frozen=True)

    min_paragraphs: int | None = Field(default=None, description="The fewest.", examples=[2])


def _paragraphs(facts):
    return facts.text.count("\\n\\n") + 1


def _rules(bounds, files):
    return [Rule("too_few", _paragraphs, least=bounds.min_paragraphs)]


FILTER = FilterKind("paragraphs", 1, Paragraphs, _rules)
```

Register it in the `pyproject.toml` of the package, and install that package wherever jobs are submitted,
planned and worked on:

```toml
[project.entry-points."shardline.filters"]
paragraphs = "my_package.paragraphs:FILTER"
```

Raise `version`, here 1, whenever the same parameters may judge a document otherwise. Name the
distributions that decide too in `libraries`, and files in `files`: both are frozen in the plan. A rule
whose value is NaN passes. An exception of a rule fails the job with `filter_failed`. Its test is a table:

```python
from shardline_common.curation.text_facts import TextFacts


def test_paragraphs():
    (rule,) = FILTER.rules(Paragraphs(min_paragraphs=2), {})
    assert rule.measure(TextFacts("one\\n\\ntwo", {})) == 2
```
"""


def filters_page() -> str:
    """Return the body of the page."""
    kinds = [load_filter(name) for name in filter_names()]
    own = [
        kind
        for kind in kinds
        if kind.parameters.__module__.startswith("shardline_") and kind.name not in (PII, REPAIR)
    ]
    return "\n".join(
        [
            wrapped(INTRODUCTION) + "\n\n" + CHOOSING + "\n\n## Presets\n\n" + wrapped(_PRESETS) + "\n",
            *(_preset(name, filters) for name, filters in PRESETS.items() if filters),
            "## The filters\n",
            *map(_filter, own),
            wrapped(OWN),
        ]
    )


CHOOSING = """## Choosing bounds by looking

`shardline preview job.json` judges the first documents of the source and shows how many pass each
filter and all together, and for each rule its bound, how many documents it drops alone and as the
first rule, percentiles and a histogram of what it measures, and some documents of each reason with
the part that the rule looks at between `»` and `«`.

```sh title="Not run by the tests: the job is yours"
shardline preview job.json --documents 10000 --html filters.html
shardline preview job.json --documents 10000 --calibrate calibrated.json --percentile 2
```

`--html` writes the same as one page without any other file, with ten kept documents and ten of
each reason. `--calibrate` writes the job with new bounds: each one drops 2 % of the sample by
itself, and the command says what they keep together. A bound that is off stays off. Then look at
the preview of the new job, and round the bounds to what you would defend."""

_PRESETS = """`clara` is the default: it has no filter, and the score alone decides. The others use filters of
Shardline alone. A bound that a preset does not name is that of the filter.

"""


def _preset(name: str, filters: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [
        f"| `{filter_name}` | `{parameter}` | {_code(value)} |"
        for filter_name, parameters in filters.items()
        for parameter, value in (parameters or {"": None}).items()
    ]
    return "\n".join([f"### {name}\n", "| filter | parameter | value |", "|---|---|---|", *rows, ""])


def _filter(kind: AnyFilterKind) -> str:
    schema = kind.parameters.model_json_schema()
    parts: Mapping[str, Any] = schema.get("$defs", {})
    rows = [
        f"| `{name}` | {about.get('description', '')} | {type_text(about, parts)} | {_default(kind, name)} "
        f"| {_example(kind, name)} |".replace("\n", " ")
        for name, about in schema["properties"].items()
    ]
    reasons = _reasons(kind)
    return "\n".join(
        [
            f"### {kind.name}\n",
            wrapped(schema.get("description", "")) + "\n",
            *([wrapped(f"Reasons: {reasons}.") + "\n"] if reasons else []),
            "| parameter | meaning | values | default | example |",
            "|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _reasons(kind: AnyFilterKind) -> str:
    """The reasons of a filter; "" where its parameters name them."""
    try:
        rules = kind.rules(kind.parameters(), {})
    except (ValidationError, KeyError):
        return ""
    return ", ".join(f"`{kind.name}.{rule.name}`" for rule in rules)


def _default(kind: AnyFilterKind, name: str) -> str:
    value = kind.parameters.model_fields[name].get_default(call_default_factory=True)
    return "required" if value is PydanticUndefined else _code(value)


def _example(kind: AnyFilterKind, name: str) -> str:
    examples = kind.parameters.model_fields[name].examples
    if not examples:
        raise ValueError(f"the parameter {name} of the filter {kind.name} has no example")
    return _code(examples[0])


def _code(value: Any) -> str:
    return f"`{orjson.dumps(value, default=list).decode()}`".replace("|", "\\|")
