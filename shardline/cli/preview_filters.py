"""What the filters of a job do to a sample: as tables on the terminal, and as a page."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from shardline.services.filter_report import Example, FilterReport, RuleReport
    from shardline_common.job.spec import JobSpec

_BLOCKS = " ▁▂▃▄▅▆▇█"
_LINE = 160


def print_filters(report: FilterReport) -> None:
    """Print how many documents pass each filter, and how the values of each rule are spread."""
    from shardline.cli.console import print_line, print_table

    total = max(1, report.documents)
    rules = report.bounded
    # Of a job without filters, the score is in the table above.
    if len(report.rules) == 1:
        return
    # A preset has dozens of rules. Those that drop nothing are on the page.
    shown = [rule for rule in rules if rule.breaks] or rules
    print_line("")
    passes = report.passes()
    print_table(
        ("filter", "pass"),
        [
            *(
                (name, f"{count / max(1, report.measured):.1%}")
                for name, count in passes.items()
                if _named(name, rules)
            ),
            ("together", f"{report.kept / total:.1%}"),
        ],
    )
    print_line("")
    print_table(
        ("rule", "keeps", "drops alone", "drops", "5 %", "50 %", "95 %", "values"),
        [_row(rule, total) for rule in shown],
        whole=("keeps", "values"),
    )
    if len(shown) < len(rules):
        print_line(f"{len(rules) - len(shown)} other rules drop nothing here; --html shows them too")


def _named(name: str, rules: Sequence[RuleReport]) -> bool:
    return any(rule.filter == name for rule in rules)


def _row(rule: RuleReport, total: int) -> tuple[str, ...]:
    found = rule.percentiles()
    middle = [number_text(found[percent]) if found else "" for percent in (5, 50, 95)]
    alone = f"{rule.breaks / total:.1%}"
    return (rule.reason, bound_text(rule), alone, f"{rule.dropped:,}", *middle, _spark(rule))


def bound_text(rule: RuleReport) -> str:
    """The bounds of a rule, such as `≥ 0.5`."""
    least, most = rule.bounds
    parts = (
        f"≥ {number_text(least)}" if least is not None else "",
        f"≤ {number_text(most)}" if most is not None else "",
    )
    return " ".join(filter(None, parts))


def number_text(value: float) -> str:
    """A value with up to 4 digits, and integers whole."""
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.4g}"


def _spark(rule: RuleReport) -> str:
    _, counts = rule.histogram()
    most = max(counts, default=0)
    # A bin with one value is visible too.
    return "".join(_BLOCKS[-(-count * (len(_BLOCKS) - 1) // most)] for count in counts) if most else ""


def print_examples(report: FilterReport, number: int) -> None:
    """Print some documents that each reason drops, with the part marked, and some that are kept."""
    from shardline.cli.console import print_line

    for reason, shown in report.examples.items():
        count = report.kept if reason is None else report.rejected[reason]
        if not any(one.text.strip() for one in shown):
            continue
        print_line("")
        print_line(f"{reason or 'kept'}: {count:,} documents")
        for one in shown[:number]:
            print_line(f"  {one.document_id}: {marked_text(one)}")


def marked_text(example: Example) -> str:
    """The text of an example in one line: the part stands between » and «."""
    text, start, end = example.text, example.start, example.end
    parts = [text] if start == end else [text[:start], "»", text[start:end], "«", text[end:]]
    line = " ".join("".join(parts).split())[:_LINE]
    return f"{'…' if example.cut_before else ''}{line}{'…' if example.cut_behind else ''}"


def write_page(path: Path, spec: JobSpec, report: FilterReport) -> None:
    """Write the report as one HTML file without any other.

    Raises:
        UsageError: the file cannot be written.
    """
    from shardline.services.filter_page import filter_page
    from shardline_common.runtime.atomic_file import AtomicFile

    with AtomicFile(path) as file:
        file.write(filter_page(spec, report).encode())


def write_calibrated(path: Path, body: bytes, report: FilterReport, percent: float) -> str:
    """Write the job with bounds at a percentile of the sample. Returns a sentence about it.

    Raises:
        UsageError: there is nothing to calibrate, or the file cannot be written.
    """
    from shardline.services.calibration import calibrated_bounds, calibrated_job
    from shardline_common.runtime.atomic_file import AtomicFile

    bounds = calibrated_bounds(report, percent)
    with AtomicFile(path) as file:
        file.write(calibrated_job(body, report.rules, bounds))
    kept = report.passes_with(bounds) / max(1, report.documents)
    return (
        f"{len(bounds)} bounds at percentile {percent:g} are in {path}; together they keep {kept:.1%} of the "
        "sample"
    )
