"""The age of the oldest message that is in no chain, in bounded memory."""

_MAX_SAMPLES = 512


class LagAge:
    """Computes the age from samples of two sums: messages produced and messages in the chains.

    All partitions count as one queue. The age of messages from before the first sample is counted from the
    first sample on.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._min_gap = 0.0

    def update(self, now: float, produced: int, chained: int) -> float:
        """The age in seconds, at `now`, of the oldest message that is in no chain; 0.0 when there is none."""
        last, highest = self._samples[-1] if self._samples else (now - self._min_gap, 0)
        if produced > highest and now - last >= self._min_gap:
            self._samples.append((now, produced))
        if len(self._samples) > _MAX_SAMPLES:
            # Drop every second sample. Its messages then count as produced at the time of the next one.
            self._min_gap = 2 * (now - self._samples[0][0]) / _MAX_SAMPLES
            del self._samples[1:-1:2]
        self._samples = [sample for sample in self._samples if sample[1] > chained]
        return now - self._samples[0][0] if self._samples else 0.0
