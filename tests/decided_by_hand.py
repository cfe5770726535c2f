"""The decision of an assembled dataset once more, in a few lines of Python over records in memory."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import combinations, groupby
from math import floor
from typing import Any

from shardline_common.dataset.decision_rules import NearRules, Rules

Drop = tuple[str, int | str | None]


@dataclass(frozen=True)
class Record:
    """A record as it was landed, with its bands; a signature is the list of its values."""

    position: int
    id: str
    status: int
    reason: str | None
    order: int
    content: bytes
    group: int
    sample: int
    id_hash: int
    size: int
    signature: tuple[int, ...] | None

    @property
    def key(self) -> tuple[int, int]:
        return self.order, self.position


@dataclass
class ByHand:
    """What was decided: why records are dropped, and the positions of each shard of each split in order."""

    rows: list[Record]
    rules: Rules
    drops: dict[int, Drop] = field(default_factory=dict)
    group_of: dict[int, int] = field(default_factory=dict)
    split_of: dict[int, str] = field(default_factory=dict)
    shards: dict[str, list[list[int]]] = field(default_factory=dict)
    clusters: list[set[int]] = field(default_factory=list)
    too_few: bool = False

    def kept(self) -> list[Record]:
        return [one for one in self.rows if one.position not in self.drops]


def band_hash(signature: Sequence[int], band: int, rows: int) -> int:
    return hash(tuple(signature[band * rows : (band + 1) * rows])) % 2**64


def decide_by_hand(records: Iterable[Record], rules: Rules, against: Sequence[set[bytes]]) -> ByHand:
    found = ByHand(sorted((one for one in records if one.status == 0), key=lambda one: one.position), rules)
    if rules.duplicate_ids != "keep":
        drop_repeats(found, "duplicate_id", lambda one: one.id)
    if rules.exact:
        drop_repeats(found, "duplicate", lambda one: one.content)
    for digest, contents in zip(rules.against, against, strict=True):
        same = [one.position for one in found.kept() if one.content in contents]
        found.drops |= dict.fromkeys(same, ("duplicate_of_dataset", digest))
    found.group_of = {one.position: one.group for one in found.rows}
    if rules.near is not None:
        find_near(found, rules.near)
    if rules.sample is not None:
        order = sorted(found.kept(), key=lambda one: (one.sample, one.position))
        below = int((rules.sample.fraction or 0) * 2**64)
        out = [one for one in order if one.sample >= below]
        if rules.sample.rows is not None:
            out = order[rules.sample.rows :]
        found.drops |= {one.position: ("sampled_out", None) for one in out}
    number_of = split_by_hand(found.kept(), found.group_of, rules)
    names = [name for name, _ in rules.splits]
    found.split_of = {one.position: names[number_of(found.group_of[one.position])] for one in found.rows}
    for name in names:
        own = (one for one in found.kept() if found.split_of[one.position] == name)
        cut_by_hand(found, name, sorted(own, key=lambda one: one.key))
    return found


def drop_repeats(found: ByHand, reason: str, value: Callable[[Record], Any]) -> None:
    first: dict[Any, int] = {}
    for one in found.kept():
        if value(one) in first:
            found.drops[one.position] = (reason, first[value(one)])
        else:
            first[value(one)] = one.position


def find_near(found: ByHand, near: NearRules) -> None:
    pairs = set()
    for band in range(near.bands):
        by_hash: dict[int, list[Record]] = {}
        for one in found.kept():
            if one.signature is not None:
                by_hash.setdefault(band_hash(one.signature, band, near.rows), []).append(one)
        pairs |= {(same[0], other) for same in by_hash.values() for other in same[1:]}
    if near.verify is not None:
        needed = Fraction(str(near.verify)) * near.bands * near.rows
        pairs = {
            (a, b)
            for a, b in pairs
            if sum(x == y for x, y in zip(a.signature or (), b.signature or (), strict=True)) >= needed
        }
    found.clusters = merged({a.position, b.position} for a, b in pairs)
    if near.remove:
        for cluster in found.clusters:
            found.drops |= {one: ("near_duplicate", min(cluster)) for one in cluster - {min(cluster)}}
        return
    own = dict(found.group_of)
    members = sorted(one for cluster in found.clusters for one in cluster)
    for group in merged({own[one] for one in cluster} for cluster in found.clusters):
        first = next(one for one in members if own[one] in group)
        found.group_of |= {position: own[first] for position, of_it in own.items() if of_it in group}


def merged(sets: Iterable[set[int]]) -> list[set[int]]:
    """Sets without a common member, by uniting those that have one."""
    result = list(sets)
    while pair := next(((a, b) for a, b in combinations(result, 2) if a & b), None):
        result = [*(one for one in result if one is not pair[0] and one is not pair[1]), pair[0] | pair[1]]
    return result


def split_by_hand(rows: list[Record], group_of: dict[int, int], rules: Rules) -> Callable[[int], int]:
    """The number of the split of a group."""
    shares = [share for _, share in rules.splits]
    groups = sorted(group_of[one.position] for one in rows)
    ends = []
    for place in range(1, len(shares)):
        if not rules.exact_splits:
            ends.append(int(sum(shares[:place]) * 2**64))
            continue
        target = floor(sum(Fraction(str(share)) for share in shares[:place]) * len(rows) + Fraction(1, 2))
        if not rows:
            return lambda _: 0
        upto, end = 0, 0
        for group, same in groupby(groups):
            if upto >= target:
                break
            upto, end = upto + len(list(same)), group + 1
        ends.append(end)
    return lambda group: next((place for place, end in enumerate(ends) if group < end), len(shares) - 1)


def cut_by_hand(found: ByHand, name: str, rows: list[Record]) -> None:
    shards, total = found.rules.shards, sum(one.size for one in rows)

    def cut(count: int) -> list[list[Record]]:
        used = len(rows) // count * count if shards.equal else len(rows)
        return [rows[i * used // count : (i + 1) * used // count] for i in range(count)]

    def largest(count: int) -> int:
        return max(sum(one.size for one in shard) for shard in cut(count))

    multiple, least = shards.multiple, shards.count or (shards.multiple if shards.multiple > 1 else 0)
    if len(rows) < least:
        found.too_few |= shards.equal
        count = len(rows)
    elif shards.count is not None:
        count = shards.count
    elif not rows:
        count = 0
    else:
        most = len(rows) - len(rows) % multiple
        wanted = -(-total // shards.limit)
        first = count = min(max(wanted + -wanted % multiple, least), most)
        limit = max(shards.limit, *(one.size for one in rows), 0)
        while count <= min(most, 2 * first) and largest(count) > limit:
            # With fewer than 256 shards, one step is one multiple.
            count += multiple
        if count > min(most, 2 * first):
            count = first
    parts = cut(count) if count else []
    found.shards[name] = [[one.position for one in shard] for shard in parts]
    placed = {one.position for shard in parts for one in shard}
    found.drops |= {one.position: ("remainder", None) for one in rows if one.position not in placed}
