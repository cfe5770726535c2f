"""What the card of an assembled dataset says about its duplicates, order, splits and shards."""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shardline_common.dataset.decision import BOILERPLATE_RECORDS, Reason
from shardline_common.dataset.decision_rules import Rules
from shardline_common.job.spec import JobSpec

_SHOWN_ID = 80
# What code in a cell of a table cannot hold.
_NO_CODE = re.compile(r"[`\s|]")
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>#|~&!])")


def assembly_section(manifest: Mapping[str, Any]) -> list[str]:
    """The lines of the section; none for a dataset that is not assembled."""
    if (notes := manifest.get("assembly")) is None:
        return []
    spec = JobSpec.model_validate(manifest["job"])
    rules = Rules.of(spec, ())
    lines = [*_dropped(spec, rules, manifest["rejected"]), *_clusters(notes["clusters"])]
    lines += _order(rules)
    if spec.output.splits is not None:
        lines += _how_split(spec, rules)
    lines += ["", *_splits(spec, manifest["shards"])]
    for warning in notes["warnings"]:
        lines += [f"> **Warning:** {_escaped(warning)}.", ""]
    return lines


def _dropped(spec: JobSpec, rules: Rules, rejected: Mapping[str, int]) -> Iterator[str]:
    """What each rule of the decision dropped, also where it is nothing."""
    if not (rows := list(_reasons(spec, rules))):
        return
    yield from ("## Left out of this dataset", "", "| rows | because | rule of the job |", "|---:|---|---|")
    for reason, because, rule in rows:
        yield f"| {rejected.get(reason, 0):,} | {because} | {rule} |"
    yield from ("", "The rules apply in this order, and of rows that are alike the first one stays.", "")


def _reasons(spec: JobSpec, rules: Rules) -> Iterator[tuple[Reason, str, str]]:
    """Reason, words and rule of what the job asks for, in the order in which the rules apply."""
    case = ", whatever the case" if rules.ignore_case else ""
    if rules.duplicate_ids != "keep":
        yield Reason.DUPLICATE_ID, "another row has the id", f"`duplicate_ids`: {rules.duplicate_ids}"
    if rules.exact:
        yield Reason.DUPLICATE, "another row has the text", f"`exact`{case}"
    if spec.dedup is not None and spec.dedup.against:
        named = ", ".join(map(_code, spec.dedup.against))
        yield Reason.DUPLICATE_OF_DATASET, "another dataset has the text", f"`against` {named}{case}"
    if (near := rules.near) is not None and near.remove:
        pairs = "" if near.verify is None else f", and {near.verify:g} of all values equal"
        how = f"one of {near.bands} bands of {near.rows} values equal, seed {near.seed}{pairs}"
        yield Reason.NEAR_DUPLICATE, "another row has nearly the text", f"`near`: {how}"
    if (sample := rules.sample) is not None:
        size = f"{sample.rows:,} rows" if sample.rows is not None else f"{sample.fraction:g} of the rows"
        yield Reason.SAMPLED_OUT, "not in the sample", f"`sample`: {size}, seed {sample.seed}"
    if rules.shards.equal:
        yield Reason.REMAINDER, "all shards of a split are equal", "`shards`: equal"


def _clusters(clusters: Mapping[str, Any] | None) -> Iterator[str]:
    if clusters is None or not clusters["count"]:
        return
    yield from ("### Near duplicates", "")
    count, largest = clusters["count"], len(clusters["largest"])
    shown = "" if count <= largest else f" The {largest} largest:"
    yield (
        f"{clusters['records']:,} rows are in {count:,} cluster{'s' * (count > 1)} of rows that are nearly "
        f"alike.{shown}"
    )
    yield from ("", "| rows of the cluster | resemble the document |", "|---:|---|")
    for cluster in clusters["largest"]:
        remark = " (boilerplate?)" if cluster["records"] > BOILERPLATE_RECORDS else ""
        yield f"| {cluster['records']:,} | {_code(cluster['id'])}{remark} |"
    yield ""


def _order(rules: Rules) -> Iterator[str]:
    yield from ("## Order, splits and shards", "")
    if rules.order_seed is None:
        yield "The rows are in the order of the source.  "
    else:
        yield f"The rows of a split are shuffled, by a hash of the seed {rules.order_seed} and their ids.  "


def _how_split(spec: JobSpec, rules: Rules) -> Iterator[str]:
    by = spec.output.group_by
    yield (
        f"Rows with the same {_code(by)} are in one split.  "
        if by
        else "A hash of the id decides the split.  "
    )
    if rules.near is not None and not rules.near.remove:
        yield "Near duplicates are in one split.  "
    if rules.exact_splits:
        yield "The shares are kept to within one group.  "


def _splits(spec: JobSpec, shards: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    asked, total = dict(spec.splits), sum(shard["rows"] for shard in shards) or 1
    several = len(asked) > 1
    yield f"| split | rows |{' share | asked for |' * several} shards | rows of a shard |"
    yield f"|---|---:|{'---:|---:|' * several}---:|---:|"
    for name in sorted(asked, key=lambda name: (name != "train", name)):
        rows = [shard["rows"] for shard in shards if shard["split"] == name]
        shares = f" {sum(rows) / total:.2%} | {100 * asked[name]:.6g}% |" * several
        yield f"| {name} | {sum(rows):,} |{shares} {len(rows):,} | {_range(rows)} |"
    yield ""


def _range(rows: Sequence[int]) -> str:
    if not rows:
        return "-"
    low, high = min(rows), max(rows)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _code(text: str) -> str:
    """Text of the source as code on one line, cut off where it is long."""
    shown = text if len(text) <= _SHOWN_ID else text[: _SHOWN_ID - 1] + "…"
    return _escaped(shown) if not shown or _NO_CODE.search(shown) else f"`{shown}`"


def _escaped(text: str) -> str:
    return _MARKDOWN.sub(r"\\\1", " ".join(text.split()))
