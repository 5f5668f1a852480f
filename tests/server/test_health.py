"""What probes and scrapes are told; every metric that the dashboard asks for exists."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from server.health import Census, Metrics, Readiness, Strain
from svp_stream.config import ROOT

DASHBOARD = json.loads((ROOT / "docs" / "grafana.json").read_text(encoding="utf-8"))
QUERIES = [t["expr"] for panel in DASHBOARD["panels"] for t in panel.get("targets", [])]
WORDS = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
PROMQL = {"rate", "sum", "by", "le", "histogram_quantile", "max", "min", "clamp_min", "increase", "on", "without"}


def told(metrics: Metrics) -> str:
    return metrics.exposition().decode()


def samples(text: str) -> dict[str, float]:
    rows = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    return {name: float(value) for name, value in rows}


def lived() -> Metrics:
    """Metrics after something of everything has happened."""
    metrics = Metrics(2)
    metrics.watch_paths(lambda: ["turn:relay.example: 401"])
    metrics.started.inc()
    metrics.refused.labels("503").inc()
    metrics.drops.labels("audio").inc()
    metrics.deny(401, "token")
    metrics.stages({"face": 12.0, "total": 13.0})
    metrics.skew(-15.0)
    metrics.encoded(25, 1, 50.0)
    metrics.connected(0.07)
    metrics.latency.observe(0.15)
    census = Census({"call": 1, "tape": 2}, 3, [0, 4], [25.0, 12.5], {"inbox": 5}, {"completed": 1}, 20, 7, 5, 30.0)
    metrics.look(census, Readiness(warm=True))
    return metrics


def test_a_census_sets_every_gauge() -> None:
    found = samples(told(lived()))
    expected = {
        'svp_sessions{kind="call"}': 1, 'svp_sessions{kind="other"}': 2, 'svp_sessions{kind="none"}': 0,
        "svp_viewers": 3, 'svp_ladder_sessions{rung="full"}': 1, 'svp_ladder_sessions{rung="repeat frame"}': 1,
        "svp_fps": 12.5, 'svp_queue_depth{queue="inbox"}': 5, 'svp_ice_connections{state="completed"}': 1,
        "svp_tasks": 20, "svp_threads": 7, "svp_pool_threads": 5, "svp_frame_cost_seconds": 0.03,
        "svp_ready": 1, "svp_degraded": 0,
        "svp_encoded_pictures_total": 25, "svp_encode_seconds_total": 0.05, "svp_capacity": 2,
        'svp_av_skew_seconds_bucket{le="-0.01"}': 1, 'svp_av_skew_seconds_bucket{le="-0.02"}': 0,
        'svp_stage_seconds_bucket{le="0.015",stage="face"}': 1,
        'svp_requests_denied_total{reason="token",status="401"}': 1,
    }  # fmt: skip
    assert {name: found.get(name) for name in expected} == expected
    assert found["process_resident_memory_bytes"] > 0 and found["process_open_fds"] > 0


def test_who_has_gone_is_gone() -> None:
    metrics = lived()
    metrics.look(Census(queues={"inbox": 0}), Readiness(warm=True))
    found = samples(told(metrics))
    gone = ("svp_sessions", "svp_ladder", "svp_ice_connections")
    assert all(value == 0 for name, value in found.items() if name.startswith(gone))
    assert found["svp_fps"] == found["svp_viewers"] == 0


def test_no_label_names_a_session() -> None:
    labels = set(re.findall(r'(\w+)="', told(lived())))
    assert labels <= {"kind", "rung", "queue", "state", "stage", "cause", "status", "reason", "le"}


@pytest.mark.parametrize(
    ("readiness", "ready", "words"),
    [
        (Readiness(), False, "warming up"), (Readiness(warm=True), True, "ready"),
        (Readiness(failure="hash"), False, "failed to start: hash"),
        (Readiness(warm=True, draining=True), False, "draining"),
    ],
)  # fmt: skip
def test_readiness(readiness: Readiness, ready: bool, words: str) -> None:
    assert readiness.ready is ready and words in readiness.words


@pytest.mark.parametrize(
    ("levels", "degraded"),
    [
        ([[4]] * 30, True), ([[3], [4]] * 15, True), ([[2]] * 60, False), ([[4]] * 29, False), ([[]] * 60, False),
        ([[4]] * 30 + [[0]] * 6, True), ([[4]] * 30 + [[0]] * 7, False), ([[0, 3]] * 30, True),
    ],
)
def test_the_ladder_at_its_end_for_long_is_told(levels: list[list[int]], degraded: bool) -> None:
    readiness = Readiness(warm=True, strain=Strain(looks=30))
    for look in levels:
        readiness.strain.look(look)
    assert readiness.strain.long is degraded and readiness.ready
    assert ("degraded" in readiness.words) is degraded


def test_the_dashboard_asks_for_metrics_that_exist() -> None:
    known = {line.split("{")[0].split(" ")[0] for line in told(lived()).splitlines() if not line.startswith("#")}
    asked = set()
    for query in QUERIES:
        bare = re.sub(r'\{[^}]*\}|\[[^\]]*\]|by \([^)]*\)|"[^"]*"', " ", query)
        asked |= {word for word in WORDS.findall(bare) if word not in PROMQL}
    assert asked and asked <= known, f"no such metric: {sorted(asked - known)}"
    ours = {name for name in known if name.startswith("svp_") and not name.endswith(("_created", "_sum", "_count"))}
    unseen = {n for n in ours if n not in asked and n.removesuffix("_bucket") + "_bucket" not in asked}
    assert not unseen, f"on no panel: {sorted(unseen)}"


def test_the_dashboard_is_one_that_grafana_imports() -> None:
    """The fields that Grafana's dashboard schema (v39) demands, unique ids, no panel over another."""
    assert DASHBOARD["schemaVersion"] >= 36 and DASHBOARD["title"] and DASHBOARD["uid"]
    assert [i["name"] for i in DASHBOARD["__inputs"]] == ["DS_PROMETHEUS"]
    panels: list[dict[str, Any]] = DASHBOARD["panels"]
    assert len({p["id"] for p in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert panel["type"] in ("timeseries", "stat", "heatmap", "row") and panel["title"]
        assert 0 <= at["x"] and at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, f"{panel['title']} lies over another"
        taken |= cells
        for target in panel.get("targets", []):
            assert target["expr"].count("(") == target["expr"].count(")")
            assert target["datasource"]["uid"] == "${DS_PROMETHEUS}" and target["refId"]
