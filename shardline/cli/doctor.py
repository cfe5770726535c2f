"""doctor: what is configured, whether it works, and what administrators must set up."""

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
    about: Annotated[
        str | None,
        typer.Argument(metavar="JOB", help="With --data a job's id, with --print-topics a job's file."),
    ] = None,
    data: Annotated[
        bool,
        typer.Option("--data", help="Show where personal data can lie, or lies of this job; no checks."),
    ] = False,
    print_acls: Annotated[
        bool, typer.Option("--print-acls", help="Print the least rights in Kafka of each process; no checks.")
    ] = False,
    print_topics: Annotated[
        bool,
        typer.Option("--print-topics", help="Print how to make the topics in Kafka beforehand; no checks."),
    ] = False,
    create_themis_indexes: Annotated[
        Path | None,
        typer.Option(metavar="JOB.json", help="Make the indexes in ThemisDB that this job needs; no checks."),
    ] = None,
    window: WindowName = None,
    sets: Sets = None,
    json: Json = False,
) -> None:
    """Show where each setting comes from, and check all that is configured: services, stores, folders."""
    from shardline_common.settings.load import load_settings
    from shardline_common.telemetry.logs import log_to_stderr

    loaded = load_settings()
    log_to_stderr("ERROR", "console", loaded.settings.secrets())
    if data:
        _show_data(loaded.settings, about, json=json)
    elif print_acls:
        _print_acls(loaded.settings, json=json)
    elif print_topics:
        _print_topics(loaded.settings, read_job(Path(about), window, sets) if about else None, json=json)
    elif create_themis_indexes is not None:
        _create_themis_indexes(loaded.settings, read_job(create_themis_indexes, window, sets), json=json)
    else:
        _examine(loaded, json=json)


def _show_data(settings: Settings, job_id: str | None, *, json: bool) -> None:
    from shardline.cli.console import put_json, put_table
    from shardline.services.data_inventory import PLACES, find_data

    if job_id is not None:
        found = complete(find_data(settings, job_id))
        rows = [(one.place, one.found) for one in found]
        put_json([one.to_json() for one in found]) if json else put_table(("place", "what is there"), rows)
    elif json:
        put_json([place.to_json() for place in PLACES])
    else:
        columns = ("place", "can hold", "kept", "`delete ID`")
        put_table(columns, [(one.place, one.holds, one.kept, one.deleted) for one in PLACES])


def _print_acls(settings: Settings, *, json: bool) -> None:
    from shardline.cli.console import put, put_json
    from shardline.services.kafka_admin import acl_commands, acls_json

    prefix = settings.kafka_topic_prefix
    put_json(acls_json(prefix)) if json else put("\n".join(acl_commands(prefix)))


def _print_topics(settings: Settings, job: JobSpec | None, *, json: bool) -> None:
    from shardline.cli.console import put, put_json
    from shardline.services.kafka_admin import topic_commands
    from shardline_producer.topics import attempt_topic_spec, system_topics

    topics, prefix = system_topics(settings.jobs_partitions), settings.kafka_topic_prefix
    if job is not None:
        topics.append(attempt_topic_spec(job, 1, settings.topic_limit_bytes))
    if json:
        put_json(
            [
                {"name": prefix + one.name, "partitions": one.partitions, "config": dict(one.config)}
                for one in topics
            ]
        )
    else:
        put("\n".join(topic_commands(topics, prefix, settings.kafka_replication_factor)))


def _create_themis_indexes(settings: Settings, job: JobSpec, *, json: bool) -> None:
    from shardline.cli.console import put, put_json
    from shardline.services.doctor import create_themis_indexes

    done = complete(create_themis_indexes(settings, job))
    put_json({"done": done}) if json else put("\n".join(done))


def _examine(loaded: LoadedSettings, *, json: bool) -> None:
    from shardline.cli.console import EXIT_UNREACHABLE, put, put_json, put_table
    from shardline.services.doctor import examine

    checks = complete(examine(loaded.settings))
    if json:
        rows = [
            {"name": name, "value": value, "from": origin} for name, value, origin in loaded.display_rows()
        ]
        put_json(
            {"settings": rows, "warnings": loaded.warnings, "checks": [check.to_json() for check in checks]}
        )
    else:
        put_table(("setting", "value", "from"), loaded.display_rows())
        put("")
        put_table(("check", "", "what was found"), [check.row() for check in checks])
    if any(check.ok is False for check in checks):
        raise typer.Exit(EXIT_UNREACHABLE)
