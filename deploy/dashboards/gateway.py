"""The dashboard of the HTTP gateway."""

from deploy.dashboards.model import (
    BYTES,
    RATE,
    SECONDS,
    SHARE,
    DashboardSpec,
    PanelKind,
    PanelSpec,
    quantile,
    rate,
)

_REQUESTS = "shardline_gateway_requests_total"
_SHARDLINE_ONLY = "and on (instance, job) shardline_gateway_requests_total"

_TRAFFIC = (
    PanelSpec(
        "Requests",
        "Requests by the status of their response; 0: the client disconnected before it.",
        {"{{status}}": rate(_REQUESTS, "status")},
        "reqps",
    ),
    PanelSpec(
        "Errors",
        "Share of the requests whose response was a 5xx.",
        {
            "5xx": f'(sum (rate({_REQUESTS}{{status=~"5.."}}[{RATE}])) or vector(0)) '
            f"/ sum (rate({_REQUESTS}[{RATE}]))"
        },
        SHARE,
        warn=0.01,
        bad=0.05,
    ),
    PanelSpec(
        "Time until a response begins",
        "Of all routes together.",
        {
            "median": quantile(0.5, "shardline_gateway_answer_seconds"),
            "95 %": quantile(0.95, "shardline_gateway_answer_seconds"),
            "99 %": quantile(0.99, "shardline_gateway_answer_seconds"),
        },
        SECONDS,
        warn=1,
        bad=5,
    ),
)
_ROUTES = (
    PanelSpec(
        "Requests by route",
        "Responses that began, by route.",
        {"{{route}}": rate("shardline_gateway_answer_seconds_count", "route")},
        "reqps",
        width=12,
    ),
    PanelSpec(
        "Slow routes",
        "95 % of the responses of a route begin within this time.",
        {"{{route}}": quantile(0.95, "shardline_gateway_answer_seconds", "route")},
        SECONDS,
        width=12,
        warn=1,
        bad=5,
    ),
)
_STREAMS = (
    PanelSpec(
        "Streams open",
        "Streams of rows, and of events.",
        {"{{kind}}": "sum by (kind) (shardline_gateway_streams_open)"},
    ),
    PanelSpec(
        "Streams that ended",
        "In the time shown, by outcome (docs/http.md).",
        {"{{outcome}}": "sum by (outcome) (round(increase(shardline_gateway_streams_total[$__range])))"},
        kind=PanelKind.FIGURES,
    ),
    PanelSpec(
        "Rows streamed",
        "Rows of streams that ended.",
        {"rows": rate("shardline_gateway_rows_total")},
        "suffix: rows/s",
    ),
    PanelSpec(
        "Actions of users",
        "In the time shown, by action and outcome; the audit log has users and datasets (docs/http.md).",
        {
            "{{action}} {{outcome}}": "sum by (action, outcome) "
            "(round(increase(shardline_gateway_actions_total[$__range])))"
        },
        kind=PanelKind.FIGURES,
    ),
)
_PROCESSES = (
    PanelSpec(
        "Memory",
        "Resident memory of each gateway.",
        {"{{instance}}": f"process_resident_memory_bytes {_SHARDLINE_ONLY}"},
        BYTES,
        width=12,
    ),
    PanelSpec(
        "CPU",
        "Cores that each gateway uses; one process uses one at most.",
        {"{{instance}}": f"rate(process_cpu_seconds_total[{RATE}]) {_SHARDLINE_ONLY}"},
        width=12,
        warn=0.8,
    ),
)

GATEWAY = DashboardSpec(
    "shardline-gateway",
    "Shardline: gateway",
    "The HTTP gateway: requests, errors, latency, streams.",
    (
        ("Traffic", _TRAFFIC),
        ("Routes", _ROUTES),
        ("Streams", _STREAMS),
        ("Processes", _PROCESSES),
    ),
)
