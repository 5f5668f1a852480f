"""Who may import whom: server, pipeline, the siblings, the leaves. Read off the syntax trees, lazy imports included."""

from __future__ import annotations

import pytest

from tests.house.source import Source, imports, sources

LEAVES = ("clock", "packets", "stage", "arkit", "config", "errors", "weights_file")
SIBLINGS = ("audio", "style", "motion", "diffusion", "runtime")
WORKSHOPS = ("training", "synthetic", "evaluation", "preparing", "person")
ROOMS = (
    *LEAVES, *SIBLINGS, *WORKSHOPS, "pipeline", "cli", "cli_ablate", "cli_research", "cli_style", "weights",
)  # fmt: skip

MAY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(LEAVES, LEAVES),
    **{room: (*LEAVES, room) for room in SIBLINGS},
    "pipeline": (*LEAVES, *SIBLINGS, "pipeline"),
    "synthetic": (*LEAVES, *SIBLINGS, "synthetic"),
    "training": (*LEAVES, *SIBLINGS, "synthetic", "training"),
    "evaluation": (*LEAVES, *SIBLINGS, "pipeline", "synthetic", "training", "evaluation"),
    "preparing": (*LEAVES, *SIBLINGS, "synthetic", "training", "evaluation", "preparing"),
    "person": (*LEAVES, *SIBLINGS, "pipeline", *WORKSHOPS),
    "cli": (*LEAVES, *SIBLINGS, *WORKSHOPS, "pipeline", "cli_ablate", "cli_research", "cli_style"),
    "cli_ablate": (*LEAVES, *SIBLINGS, *WORKSHOPS, "pipeline", "cli_research"),
    "cli_research": (*LEAVES, *SIBLINGS, *WORKSHOPS, "pipeline"),
    "cli_style": (*LEAVES, *SIBLINGS, *WORKSHOPS, "pipeline", "cli_research"),
    "server": (*LEAVES, *SIBLINGS, "pipeline", "server"),
}
"""Room to the rooms that it may import."""

SHELL_ONLY = (
    "asyncio", "aiortc", "aioice", "fastapi", "starlette", "uvicorn", "websockets", "http", "httpx", "socket",
    "requests", "urllib.request", "aiohttp", "server",
)  # fmt: skip
"""What the pure core never touches: event loops, sockets, HTTP."""


def room_of(name: str) -> str | None:
    """The room that a dotted name lies in; None for names outside the project and for the package itself."""
    parts = name.split(".")
    if parts[0] == "server":
        return "server"
    if parts[0] == "svp_stream" and len(parts) > 1 and parts[1] in ROOMS:
        return parts[1]
    return None


def violations(source: Source) -> list[str]:
    """Imports of `source` against the direction, in words."""
    here = room_of(source.module)
    found = []
    for line, name in imports(source):
        there = room_of(name)
        if here is not None and there is not None and there not in MAY.get(here, ()):
            found.append(f"{source.path}:{line} {here} imports {name}")
        if here != "server" and any(name == banned or name.startswith(f"{banned}.") for banned in SHELL_ONLY):
            found.append(f"{source.path}:{line} the pure core imports {name}")
    return found


@pytest.mark.parametrize("package", ["svp_stream", "server"])
def test_direction(package: str) -> None:
    found = [v for source in sources(package) for v in violations(source)]
    assert not found, "\n".join(found)


def test_every_room_is_known() -> None:
    rooms = {s.module.split(".")[1] for s in sources("svp_stream") if "." in s.module}
    assert rooms <= set(ROOMS), f"give {sorted(rooms - set(ROOMS))} a place in MAY"


@pytest.mark.parametrize(
    ("module", "statement"),
    [
        ("svp_stream.audio.x", "from svp_stream.style import preset"),
        ("svp_stream.audio.x", "def f():\n    import svp_stream.pipeline.session"),
        ("svp_stream.pipeline.x", "from svp_stream import training"),
        ("svp_stream.pipeline.x", "from ..training.loop import run_stage"),
        ("svp_stream.clock", "from svp_stream.audio.vad import Vad"),
        ("svp_stream.motion.x", "import asyncio"),
        ("svp_stream.evaluation.x", "from http.client import HTTPConnection"),
        ("server.x", "from svp_stream.synthetic.rig import Rig"),
        ("svp_stream.cli", "import server.app"),
        ("svp_stream.evaluation.x", "from svp_stream.preparing.prepare import prepare"),
    ],
)
def test_a_violation_is_seen(module: str, statement: str) -> None:
    from pathlib import Path

    source = Source(Path(module.replace(".", "/") + ".py"), module, statement)
    assert violations(source)
