"""What the rules of an assembled dataset drop among the documents of a preview, within these alone."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from shardline_common.assembly.content_hash import content_hash
from shardline_common.assembly.minhash import Signer, equal_components
from shardline_common.dataset.decision import Reason
from shardline_common.dataset.decision_rules import Rules
from shardline_common.job.hashing import sample_key
from shardline_common.job.spec import JobSpec


@dataclass(frozen=True, slots=True)
class Compared:
    """What a document is compared by: its id, the hash of its text, and its signature.

    None where the job does not compare by it, or the text is too short for it.
    """

    id: str
    content: bytes | None
    signature: bytes | None


class SampleDrops:
    """The rules of one job.

    Raises:
        UsageError: the job looks for near duplicates, and NumPy is not installed.
    """

    def __init__(self, spec: JobSpec) -> None:
        self._rules = rules = Rules.of(spec, ())
        near = rules.near
        self._near = near if near is not None and near.remove else None
        self._signer = Signer(near.bands, near.rows, near.seed) if near is not None and near.remove else None

    def compared(self, identity: str, text: str) -> Compared:
        """What a document is compared by."""
        rules = self._rules
        content = content_hash(text, ignore_case=rules.ignore_case) if rules.exact else None
        return Compared(identity, content, self._signer.sign(text) if self._signer is not None else None)

    def reasons(self, documents: Sequence[Compared | None], *, complete: bool) -> list[str | None]:
        """For each document the reason why it would be dropped; None: it would stay, or is no row.

        Args:
            documents: those of the sample in the order of the source; None for one that is no row.
            complete: the sample is the whole source. Otherwise `sample.rows` drops nothing.
        """
        found: list[str | None] = [None] * len(documents)
        rules = self._rules

        def kept() -> list[tuple[int, Compared]]:
            return [
                (place, one)
                for place, one in enumerate(documents)
                if one is not None and found[place] is None
            ]

        if rules.duplicate_ids != "keep":
            _drop_repeated(kept(), lambda one: one.id, found, Reason.DUPLICATE_ID)
        if rules.exact:
            _drop_repeated(kept(), lambda one: one.content, found, Reason.DUPLICATE)
        if self._signer is not None:
            for place in self._near_duplicates(kept(), self._signer):
                found[place] = Reason.NEAR_DUPLICATE.value
        if (sample := rules.sample) is not None and (sample.below is not None or complete):
            keys = sorted((sample_key(sample.seed, one.id.encode()), place) for place, one in kept())
            most = len(keys) if sample.rows is None else sample.rows
            for number, (key, place) in enumerate(keys):
                if number >= most or (sample.below is not None and key >= sample.below):
                    found[place] = Reason.SAMPLED_OUT.value
        return found

    def _near_duplicates(self, documents: Sequence[tuple[int, Compared]], signer: Signer) -> list[int]:
        """The documents of each cluster but its first: as the decision, by edges to the first of a band."""
        needed = self._near.needed if self._near is not None else None
        first: dict[tuple[int, int], tuple[int, bytes]] = {}
        parents = {place: place for place, _ in documents}

        def root(place: int) -> int:
            while parents[place] != place:
                parents[place] = place = parents[parents[place]]
            return place

        for place, one in documents:
            if one.signature is None:
                continue
            for band in signer.bands(one.signature):
                other, signature = first.setdefault(band, (place, one.signature))
                if needed is None or equal_components(signature, one.signature) >= needed:
                    low, high = sorted((root(other), root(place)))
                    parents[high] = low
        return [place for place, _ in documents if root(place) != place]


def _drop_repeated(
    documents: Sequence[tuple[int, Compared]],
    by: Callable[[Compared], object],
    found: list[str | None],
    reason: Reason,
) -> None:
    seen = set[object]()
    for place, one in documents:
        value = by(one)
        if value in seen:
            found[place] = reason.value
        seen.add(value)
