"""From boards to Grafana's JSON, by Grafana's own builders."""

import json
from collections.abc import Callable
from itertools import count

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.dashboards.model import Board, Figure, Look

Panel = timeseries.Panel | stat.Panel | bargauge.Panel | table.Panel

DATASOURCE = model.DataSourceRef("prometheus", "${datasource}")
_RUNBOOKS = "https://docs.example.org/shardline/runbooks"
_JOB_LINK = (
    "/d/shardline-job?${datasource:queryparam}&${runbooks:queryparam}"
    "&var-dataset_job=${__field.labels.dataset_job}&${__url_time_range}"
)
_HEIGHTS = {Look.LINES: 8, Look.FIGURES: 5, Look.BARS: 8, Look.TABLE: 5}


def render(board: Board) -> str:
    """The dashboard as Grafana reads it, keys sorted, so that it changes only with its content."""
    builder = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.meaning)
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
        .variables(_variables(board))
    )
    numbers = count(1)
    for title, figures in board.rows:
        builder.with_row(dashboard.Row(title).id(next(numbers)))
        height = max(_HEIGHTS[figure.look] for figure in figures)
        for figure in figures:
            builder.with_panel(_panel(figure).height(height).id(next(numbers)))
    return json.dumps(builder.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"


def _variables(board: Board) -> list[Builder[model.VariableModel]]:
    found: list[Builder[model.VariableModel]] = [
        dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        dashboard.TextBoxVariable("runbooks").label("Runbooks").default_value(_RUNBOOKS),
    ]
    if board.job:
        found.append(
            dashboard.QueryVariable("dataset_job")
            .label("Job")
            .datasource(DATASOURCE)
            .query("label_values(shardline_job_progress_ratio, dataset_job)")
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .sort(model.VariableSort.ALPHABETICAL_ASC)
        )
    return found


def _panel(figure: Figure) -> Panel:
    panel: Panel = _LOOKS[figure.look]()
    panel.title(figure.title).description(figure.meaning).datasource(DATASOURCE).unit(figure.unit)
    panel.span(figure.width).thresholds(_thresholds(figure))
    for number, (legend, query) in enumerate(figure.queries.items()):
        panel.with_target(_query(chr(ord("A") + number), legend, query, figure.look))
    if figure.floor is not None:
        panel.min(figure.floor)
    if figure.ceiling is not None:
        panel.max(figure.ceiling)
    if figure.alert is not None:
        panel.links([_link(f"Runbook: {figure.alert}", f"${{runbooks}}/{figure.alert}")])
    if figure.by_job:
        panel.data_links([_link("This job", _JOB_LINK, blank=False)])
    if figure.look is Look.TABLE:
        panel.data_links([_link("Runbook", "${runbooks}/${__data.fields.alertname}")])
    if isinstance(panel, timeseries.Panel) and (figure.warn is not None or figure.bad is not None):
        panel.thresholds_style(
            common.GraphThresholdsStyleConfig().mode(options.GraphTresholdsStyleMode.DASHED)
        )
    return panel


def _query(name: str, legend: str, query: str, look: Look) -> prometheus.Dataquery:
    found = prometheus.Dataquery().ref_id(name).expr(query).legend_format(legend)
    if look is Look.TABLE:
        return found.instant().format(PromQueryFormat.TABLE)
    return found.instant() if look is Look.BARS else found.range()


def _thresholds(figure: Figure) -> dashboard.ThresholdsConfig:
    steps = [model.Threshold(value=None, color="green")]
    for value, color in ((figure.warn, "yellow"), (figure.bad, "red")):
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


_LOOKS: dict[Look, Callable[[], Panel]] = {
    Look.LINES: _lines,
    Look.FIGURES: _figures,
    Look.BARS: _bars,
    Look.TABLE: table.Panel,
}
