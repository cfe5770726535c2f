"""The age of the oldest message that no chain holds, in bounded memory."""

_MAX_SAMPLES = 512


class LagAge:
    """Computes the age from samples of two sums: messages produced and messages in the chains.

    Partitions are taken together, as one queue. What was produced before the first sample counts from the
    first sample on.
    """

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._min_gap = 0.0

    def update(self, now: float, produced: int, chained: int) -> float:
        """Seconds since more was produced than the chains hold at `now`; 0.0 when they hold everything."""
        last, most = self._samples[-1] if self._samples else (now - self._min_gap, 0)
        if produced > most and now - last >= self._min_gap:
            self._samples.append((now, produced))
        if len(self._samples) > _MAX_SAMPLES:
            # Drop every other sample: its messages then count as produced with the next one, a little later.
            self._min_gap = 2 * (now - self._samples[0][0]) / _MAX_SAMPLES
            del self._samples[1:-1:2]
        self._samples = [sample for sample in self._samples if sample[1] > chained]
        return now - self._samples[0][0] if self._samples else 0.0
