"""How old the oldest message is that no chain holds: from samples of the sums alone, in bounded memory."""

_MOST_SAMPLES = 512


class Age:
    """Remembers when how much had been produced. What was there at the first look counts from then on."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, int]] = []
        self._apart = 0.0

    def look(self, now: float, produced: int, chained: int) -> float:
        """Seconds since more was produced than the chains hold now; 0 when they hold all.

        Partitions are taken together: the sums tell of one queue.
        """
        last, most = self._samples[-1] if self._samples else (now - self._apart, 0)
        if produced > most and now - last >= self._apart:
            self._samples.append((now, produced))
        if len(self._samples) > _MOST_SAMPLES:
            # Every other one is let go; what it stood for counts as produced with the next, a little later.
            self._apart = 2 * (now - self._samples[0][0]) / _MOST_SAMPLES
            del self._samples[1:-1:2]
        self._samples = [sample for sample in self._samples if sample[1] > chained]
        return now - self._samples[0][0] if self._samples else 0.0
