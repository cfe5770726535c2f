"""The catalogues of settings and metrics as Markdown tables."""

from shardline_common.settings.load import Settings, in_file, is_secret, masked, names_of
from shardline_common.telemetry.metrics import CATALOGUE


def metrics_reference() -> str:
    """Return the table of metrics."""
    lines = ["| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for name, item in CATALOGUE.items():
        labels = ", ".join((("dataset_job",) if item.per_job else ()) + item.labels)
        lines.append(f"| `shardline_{name}` | {item.kind.__name__.lower()} | {labels} | {item.meaning} |")
    return "\n".join(lines) + "\n"


def settings_reference() -> str:
    """Return the table of settings."""
    lines = ["| environment | shardline.toml | default | meaning |", "|---|---|---|---|"]
    for name, info in Settings.model_fields.items():
        names = ", ".join(f"`{variable}`" for variable in names_of(name))
        if in_file(name):
            names += f", `{names_of(name)[0]}_FILE`"
        default = "the system's temporary folder" if name == "spool_dir" else masked(info.default)
        key = "(secret)" if is_secret(name) else f"`{name}`"
        lines.append(f"| {names} | {key} | {default} | {info.description} |")
    return "\n".join(lines) + "\n"
