"""Interleaved rounds of measurements, and the table that compares them with ceilings and aims."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from rich.console import Console
from rich.table import Table

Figures = Mapping[str, float]
"""What one round measured, by name."""


@dataclass(frozen=True)
class Aim:
    """A row of the table: a figure of a round, its ceiling from the same round, and the aim.

    The aim is a bound of the ratio if there is a ceiling, else of the figure. `least` says that it is a
    lower bound. A figure that no round has was not measured: the table shows `-`.
    """

    what: str
    figure: str
    unit: str
    ceiling: str | None = None
    bound: float | None = None
    least: bool = False
    note: str = ""

    @property
    def aim(self) -> str:
        """The aim in words."""
        if self.bound is None:
            return ""
        sign = "≥" if self.least else "≤"
        return f"{sign} {self.bound:g} times" if self.ceiling else f"{sign} {_short(self.bound)} {self.unit}"


@dataclass(frozen=True)
class Options:
    """How much is measured."""

    documents: int
    rounds: int
    cores: int
    before: str | None = None
    """The Python of an environment with an earlier Shardline, to compare with."""


class Group(Protocol):
    """Measurements that share a set-up, and the rows of the table that come from them."""

    @property
    def aims(self) -> Sequence[Aim]:
        """The rows of the table."""

    def measuring(self, folder: Path, options: Options) -> AbstractContextManager[Callable[[int], Figures]]:
        """Set up for all rounds. The function measures everything once; it takes the number of the round."""


@dataclass
class Measured:
    """The figures of all rounds of one group."""

    aims: Sequence[Aim]
    rounds: list[Figures] = field(default_factory=list)

    def values(self, name: str) -> list[float]:
        """A figure in every round that has it."""
        return [one[name] for one in self.rounds if name in one]

    def ratios(self, aim: Aim) -> list[float]:
        """Figure by ceiling, each pair from one round."""
        found = [one for one in self.rounds if aim.figure in one and aim.ceiling in one]
        return [one[aim.figure] / one[aim.ceiling] for one in found if aim.ceiling and one[aim.ceiling]]

    def rows(self) -> list[list[str]]:
        """The rows of the table."""
        return [self._row(aim) for aim in self.aims if aim.bound is not None or self.values(aim.figure)]

    def _row(self, aim: Aim) -> list[str]:
        values, ratios = self.values(aim.figure), self.ratios(aim)
        ceiling = self.values(aim.ceiling) if aim.ceiling else []
        judged = ratios if aim.ceiling else values
        return [
            aim.what,
            aim.unit,
            spread(values, aim.least),
            f"{spread(ceiling, aim.least)} {aim.note or aim.ceiling or ''}".strip() if ceiling else "",
            spread(ratios, aim.least),
            aim.aim,
            _verdict(aim, judged),
        ]


def spread(values: Sequence[float], least: bool = False) -> str:
    """The best of the values, and their median."""
    if not values:
        return "-"
    best = max(values) if least else min(values)
    return f"{_short(best)} ({_short(statistics.median(values))})"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


def _verdict(aim: Aim, judged: Sequence[float]) -> str:
    if not judged or aim.bound is None:
        return ""
    median = statistics.median(judged)
    return "yes" if (median >= aim.bound if aim.least else median <= aim.bound) else "no"


def measure(group: Group, folder: Path, options: Options) -> Measured:
    """Measure a group for all rounds."""
    found = Measured(group.aims)
    folder.mkdir()
    with group.measuring(folder, options) as once:
        found.rounds += [once(number) for number in range(options.rounds)]
    return found


def show(found: Sequence[Measured], options: Options) -> None:
    """Print the table."""
    title = f"{options.documents:,} documents of 2 KB, {options.rounds} interleaved rounds: best (median)"
    table = Table(title=title, caption="CPU-s/M: CPU-seconds for a million documents, start taken off")
    for column in ("what", "unit", "now", "ceiling in the same round", "ratio", "aim", "met"):
        table.add_column(column)
    for one in found:
        for row in one.rows():
            table.add_row(*row)
    Console(width=170).print(table)
