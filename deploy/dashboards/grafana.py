"""Renders dashboards as Grafana's JSON, with Grafana's own builders."""

import json
from collections.abc import Callable
from itertools import count

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.dashboards.model import DashboardSpec, PanelKind, PanelSpec

Panel = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel

DATASOURCE = model.DataSourceRef("prometheus", "${datasource}")
_RUNBOOKS = "https://docs.example.org/shardline/runbooks"
_JOB_LINK = (
    "/d/shardline-job?${datasource:queryparam}&${runbooks:queryparam}"
    "&var-dataset_job=${__field.labels.dataset_job}&${__url_time_range}"
)
_HEIGHTS = {PanelKind.LINES: 8, PanelKind.FIGURES: 5, PanelKind.BARS: 8, PanelKind.TABLE: 5}


def render(spec: DashboardSpec) -> str:
    """The dashboard as Grafana reads it. Keys are sorted, so the text changes only with its content."""
    builder = (
        dashboard.Dashboard(spec.title)
        .uid(spec.uid)
        .description(spec.meaning)
        .tags(["shardline"])
        .timezone("browser")
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .refresh("30s")
        .time("now-1h", "now")
        .link(
            dashboard.DashboardLink("Shardline")
            .type(model.DashboardLinkType.DASHBOARDS)
            .tags(["shardline"])
            .keep_time(keep_time=True)
        )
        .link(_link("Runbooks", "${runbooks}"))
        .variables(_variables(spec))
    )
    numbers = count(1)
    for title, panel_specs in spec.rows:
        builder.with_row(dashboard.Row(title).id(next(numbers)))
        height = max(_HEIGHTS[panel_spec.kind] for panel_spec in panel_specs)
        for panel_spec in panel_specs:
            builder.with_panel(_panel(panel_spec).height(height).id(next(numbers)))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variables(spec: DashboardSpec) -> list[Builder[model.VariableModel]]:
    found: list[Builder[model.VariableModel]] = [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        dashboard.TextBoxVariable("runbooks").label("Runbooks").default_value(_RUNBOOKS),
    ]
    if spec.job:
        found.append(
            dashboard.QueryVariable("dataset_job")
            .label("Job")
            .datasource(DATASOURCE)
            .query("label_values(shardline_job_progress_ratio, dataset_job)")
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
        )
    return found


def _panel(panel_spec: PanelSpec) -> Panel:
    panel: Panel = _PANELS[panel_spec.kind]()
    panel.title(panel_spec.title).description(panel_spec.meaning).datasource(DATASOURCE).unit(panel_spec.unit)
    panel.span(panel_spec.width).thresholds(_thresholds(panel_spec))
    for number, (legend, query) in enumerate(panel_spec.queries.items()):
        panel.with_target(_query(chr(ord("A") + number), legend, query, panel_spec.kind))
    if panel_spec.floor is not None:
        panel.min(panel_spec.floor)
    if panel_spec.ceiling is not None:
        panel.max(panel_spec.ceiling)
    if panel_spec.alert is not None:
        panel.links([_link(f"Runbook: {panel_spec.alert}", f"${{runbooks}}/{panel_spec.alert}")])
    if panel_spec.by_job:
        panel.data_links([_link("This job", _JOB_LINK, blank=False)])
    if panel_spec.kind is PanelKind.TABLE:
        panel.data_links([_link("Runbook", "${runbooks}/${__data.fields.alertname}")])
    if isinstance(panel, timeseries.Panel) and (panel_spec.warn is not None or panel_spec.bad is not None):
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphTresholdsStyleMode.DASHED)
        )
    return panel


def _query(name: str, legend: str, query: str, kind: PanelKind) -> prometheus.Dataquery:
    found = prometheus.Dataquery().ref_id(name).expr(query).legend_format(legend)
    if kind is PanelKind.TABLE:
        return found.instant().format(PromQueryFormat.TABLE)
    return found.instant() if kind is PanelKind.BARS else found.range()


def _thresholds(panel_spec: PanelSpec) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=None, color="green")]
    for value, color in ((panel_spec.warn, "yellow"), (panel_spec.bad, "red")):
        if value is not None:
            steps.append(model.Threshold(value=value, color=color))
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)


def _link(title: str, url: str, *, blank: bool = True) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(title)
        .type(model.DashboardLinkType.LINK)
        .url(url)
        .target_blank(target_blank=blank)
    )


def _lines() -> timeseries.Panel:
    legend = common.VizLegendOptions().display_mode(options.LegendDisplayMode.LIST)
    return (
        timeseries.Panel()
        .legend(legend.placement(options.LegendPlacement.BOTTOM).show_legend(show_legend=True))
        .line_width(1)
        .fill_opacity(10)
        .show_points(options.VisibilityMode.AUTO)
    )


def _figures() -> stat.Panel:
    return (
        stat.Panel()
        .graph_mode(options.BigValueGraphMode.NONE)
        .text_mode(options.BigValueTextMode.AUTO)
        .color_mode(options.BigValueColorMode.VALUE)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


def _bars() -> bargauge.Panel:
    return (
        bargauge.Panel()
        .orientation(options.VizOrientation.HORIZONTAL)
        .display_mode(options.BarGaugeDisplayMode.BASIC)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
    )


_PANELS: dict[PanelKind, Callable[[], Panel]] = {
    PanelKind.LINES: _lines,
    PanelKind.FIGURES: _figures,
    PanelKind.BARS: _bars,
    PanelKind.TABLE: table.Panel,
}
