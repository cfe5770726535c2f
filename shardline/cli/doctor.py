"""doctor: shows the configuration, checks it, and prints the set-up for administrators."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from shardline.cli.options import Json, Sets, WindowName, complete, read_job

if TYPE_CHECKING:
    from shardline_common.job.spec import JobSpec
    from shardline_common.settings.load import LoadedSettings, Settings


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(
        epilog="Examples: shardline doctor · shardline doctor --data laws-2026 · "
        "shardline doctor --print-acls · shardline doctor --print-topics job.json · "
        "shardline doctor --create-themis-indexes job.json"
    )(doctor)


def doctor(  # noqa: PLR0913, PLR0917 - each is an option of the command line
    job: Annotated[
        str | None,
        typer.Argument(metavar="JOB", help="With --data a job's id, with --print-topics a job's file."),
    ] = None,
    data: Annotated[
        bool,
        typer.Option("--data", help="Show where personal data can be, or are for this job; no checks."),
    ] = False,
    print_acls: Annotated[
        bool, typer.Option("--print-acls", help="Print the rights in Kafka that a process needs; no checks.")
    ] = False,
    print_topics: Annotated[
        bool,
        typer.Option("--print-topics", help="Print the commands that create the topics; no checks."),
    ] = False,
    create_themis_indexes: Annotated[
        Path | None,
        typer.Option(metavar="JOB.json", help="Create the indexes in ThemisDB for this job; no checks."),
    ] = None,
    window: WindowName = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Show the origin of each setting, and check what is configured: services, stores, folders."""
    from shardline_common.settings.load import load_settings
    from shardline_common.telemetry.logs import log_to_stderr

    loaded = load_settings()
    log_to_stderr("ERROR", "console", loaded.settings.secrets())
    if data:
        _show_data(loaded.settings, job, json=json)
    elif print_acls:
        _print_acls(loaded.settings, json=json)
    elif print_topics:
        spec = read_job(Path(job), window, sets, loaded.settings) if job else None
        _print_topics(loaded.settings, spec, json=json)
    elif create_themis_indexes is not None:
        _create_themis_indexes(loaded.settings, read_job(create_themis_indexes, window, sets), json=json)
    else:
        _run_checks(loaded, json=json)


def _show_data(settings: Settings, job_id: str | None, *, json: bool) -> None:
    from shardline.cli.console import print_json, print_table
    from shardline.services.data_inventory import DATA_LOCATIONS, find_data

    if job_id is not None:
        found = complete(find_data(settings, job_id))
        rows = [(one.place, one.found) for one in found]
        print_json([one.to_json() for one in found]) if json else print_table(("place", "found"), rows)
    elif json:
        print_json([place.to_json() for place in DATA_LOCATIONS])
    else:
        columns = ("place", "can hold", "kept", "`delete ID`")
        print_table(columns, [(one.place, one.holds, one.kept, one.deleted) for one in DATA_LOCATIONS])


def _print_acls(settings: Settings, *, json: bool) -> None:
    from shardline.cli.console import print_json, print_line
    from shardline.services.kafka_admin import acl_commands, acls_json

    prefix = settings.kafka_topic_prefix
    print_json(acls_json(prefix)) if json else print_line("\n".join(acl_commands(prefix)))


def _print_topics(settings: Settings, job: JobSpec | None, *, json: bool) -> None:
    from shardline.cli.console import print_json, print_line
    from shardline.services.kafka_admin import topic_commands
    from shardline_producer.topics import attempt_topic_spec, system_topics

    topics, prefix = system_topics(settings.jobs_partitions), settings.kafka_topic_prefix
    if job is not None:
        topics.append(attempt_topic_spec(job, 1, settings.topic_limit_bytes))
    if json:
        print_json(
            [
                {"name": prefix + one.name, "partitions": one.partitions, "config": dict(one.config)}
                for one in topics
            ]
        )
    else:
        print_line("\n".join(topic_commands(topics, prefix, settings.kafka_replication_factor)))


def _create_themis_indexes(settings: Settings, job: JobSpec, *, json: bool) -> None:
    from shardline.cli.console import print_json, print_line
    from shardline.services.doctor import create_themis_indexes

    done = complete(create_themis_indexes(settings, job))
    print_json({"done": done}) if json else print_line("\n".join(done))


def _run_checks(loaded: LoadedSettings, *, json: bool) -> None:
    from shardline.cli.console import EXIT_UNREACHABLE, print_json, print_line, print_table
    from shardline.services.doctor import run_checks

    checks = complete(run_checks(loaded.settings))
    if json:
        rows = [
            {"name": name, "value": value, "from": origin} for name, value, origin in loaded.display_rows()
        ]
        print_json(
            {"settings": rows, "warnings": loaded.warnings, "checks": [check.to_json() for check in checks]}
        )
    else:
        print_table(("setting", "value", "from"), loaded.display_rows())
        print_line("")
        print_table(("check", "", "what was found"), [check.row() for check in checks])
    if any(check.ok is False for check in checks):
        raise typer.Exit(EXIT_UNREACHABLE)
