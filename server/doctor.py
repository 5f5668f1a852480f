"""`python -m server.doctor`, which `svp doctor` runs: what will and will not connect on this machine, and why.

In: a profile. Out: findings (see `diagnosis`) as a table or JSON; exit code 1 when calls will fail, 2 for a wrong
profile. Remembers: nothing. It asks only servers that the profile names, in the very way in which calls ask them.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import aioice.ice
import av
import typer

from server import diagnosis, seams, tls, turn
from server.__main__ import EXIT_WRONG, overridden
from server.diagnosis import Asked, Finding
from server.ice import Ice, is_loopback
from server.ice_seams import Agent, NoPath, Plan
from server.ice_troubles import Troubles
from svp_stream.config import MINI_WEIGHTS, Config, load_config
from svp_stream.errors import SvpError
from svp_stream.pipeline import bench, build
from svp_stream.weights_file import HASHES, check_hash

SPEECH_S = 4.0
CODECS = (("VP8", "libvpx", True), ("H.264", "libx264", False), ("Opus", "libopus", True))


def examine(config: Config, *, measure: bool = True) -> list[Finding]:
    """Everything; with `measure` also a few seconds of the engine at full speed."""
    server, ice = config.server, config.ice
    if is_loopback(server.host):
        seams.gather_loopback()
    addresses = aioice.ice.get_host_addresses(use_ipv4=True, use_ipv6=True)
    found = [diagnosis.of_port(server.host, server.port, listening_fails(server.host, server.port))]
    found += diagnosis.of_origin(server) + certificate(config)
    found.append(diagnosis.of_addresses(server.host, addresses, ice))
    taken = 0 if ice.port_range is None else taken_ports(ice.port_range, addresses)
    found.append(diagnosis.of_udp(ice.port_range, taken, len(addresses), server.capacity))
    found += asyncio.run(servers(config, addresses))
    found += [
        diagnosis.of_codec(name, library, present=has_encoder(library), needed=needed)
        for name, library, needed in CODECS
    ]
    found.append(model(config))
    if measure and found[-1].level == "ok":
        found.append(budget(config))
    return found


def listening_fails(host: str, port: int) -> str | None:
    """Why nothing can listen there, in words; None when it can."""
    try:
        kind, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(kind, socket.SOCK_STREAM) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(address)
            sock.listen(1)
    except OSError as error:
        return (error.strerror or str(error)).lower()
    return None


def taken_ports(ports: tuple[int, int], addresses: list[str]) -> int:
    """How many UDP ports of a range are taken at any of the addresses."""
    taken = 0
    for port in range(ports[0], ports[1] + 1):
        for address in addresses:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            with socket.socket(family, socket.SOCK_DGRAM) as sock:
                try:
                    sock.bind((address, port))
                except OSError:
                    taken += 1
                    break
    return taken


async def servers(config: Config, addresses: list[str]) -> list[Finding]:
    """Each STUN and TURN server of the profile, asked as a call asks it."""
    ice, plan = config.ice, Ice(config.ice).plan()
    found = [diagnosis.of_stun(await ask(plan, stun=url), addresses) for url in ice.stun]
    asked = [await ask(plan, turn_url=url) for url in ice.turn]
    alone = not any(a.failure is None for a in asked)
    found += [diagnosis.of_turn(a, policy=ice.policy, alone=alone) for a in asked]
    return found + diagnosis.of_credentials(ice)


async def ask(plan: Plan, *, stun: str | None = None, turn_url: str | None = None) -> Asked:
    """One server alone; a TURN server really gives a relay, which is given back."""
    url = turn.parse_url(stun or turn_url or "")
    troubles = Troubles()
    only = replace(
        plan, stun=(url,) if stun else (), turn=(url,) if turn_url else (), ports=None, advertise=None,
        relay_only=False, troubles=troubles,
    )  # fmt: skip
    agent = Agent(only, ice_controlling=False)
    began = time.perf_counter()
    try:
        await agent.gather_candidates()
        took_ms = (time.perf_counter() - began) * 1000
        wanted = [c.host for c in agent.local_candidates if c.type == ("srflx" if stun else "relay")]
    except NoPath as error:
        return Asked(str(url), None, str(error), 0.0)
    finally:
        await agent.close()
    said = [sentence.removeprefix(f"{url} ") for sentence in troubles.sentences()]
    return Asked(str(url), wanted[0] if wanted else None, said[0] if said else None, took_ms)


def certificate(config: Config) -> list[Finding]:
    """The files of the profile, if it names any."""
    try:
        tls.pair(config.server, datetime.now(UTC))
    except SvpError as error:
        return [Finding("problem", "TLS", str(error), "see --tls")]
    return []


def has_encoder(library: str) -> bool:
    """Whether PyAV's FFmpeg can encode with it."""
    try:
        av.codec.Codec(library, "w")
    except ValueError:
        return False
    return True


def model(config: Config) -> Finding:
    """The files of the weights against their hashes."""
    if config.model.engine == "noop":
        return diagnosis.of_model("noop", 0, None)
    folder = config.model.weights or MINI_WEIGHTS
    try:
        names = list(json.loads((folder / HASHES).read_text()))
        for name in names:
            if not (folder / name).is_file():
                return diagnosis.of_model("mini", 0, f"{folder / name} is missing")
            check_hash(folder / name)
    except (OSError, ValueError) as error:
        return diagnosis.of_model("mini", 0, f"{folder / HASHES} cannot be read: {error}")
    except SvpError as error:
        return diagnosis.of_model("mini", 0, str(error))
    return diagnosis.of_model("mini", len(names), None)


def budget(config: Config) -> Finding:
    """One session at full speed for a few seconds of speech."""
    try:
        build.set_threads(config)
        engine = build.build_engine(config)
        shelf = build.build_shelf(config, engine, allow_paths=True)
        figures = bench.run_street(
            engine, build.build_vad(config), build.first_style(config, shelf), build.first_avatar(config, engine),
            bench.syllables(SPEECH_S), rule=build.build_rule(config), effort=0,
        )  # fmt: skip
    except SvpError as error:
        return Finding("problem", "model", str(error), "see the sections model and style of the profile")
    here = figures.machine
    return diagnosis.of_budget(1000 / figures.fps, here.cores, config.server.capacity, here.load)


def main(
    config: Annotated[Path | None, typer.Option(help="Profile, a YAML file; see configs/.")] = None,
    host: Annotated[str | None, typer.Option(help="As the server is started with.")] = None,
    port: Annotated[int | None, typer.Option(help="As the server is started with.")] = None,
    token: Annotated[str | None, typer.Option(envvar="SVP_TOKEN", help="As the server is started with.")] = None,
    tls_files: Annotated[str | None, typer.Option("--tls", help="As the server is started with.")] = None,
    engine: Annotated[str | None, typer.Option(help="mini or noop.")] = None,
    measure: Annotated[bool, typer.Option(help="Also run the engine for a few seconds.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Says what will and will not connect, and what to do about it."""
    try:
        settings = overridden(
            load_config(config), server={"host": host, "port": port, "token": token}, model={"engine": engine}
        )
        if tls_files is not None:
            chosen = settings.server.model_copy(update=tls.parse(tls_files))
            settings = settings.model_copy(update={"server": chosen})
        found = examine(settings, measure=measure)
    except SvpError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_WRONG) from None
    typer.echo(json.dumps(diagnosis.listed(found), indent=2) if as_json else diagnosis.table(found))
    raise typer.Exit(diagnosis.exit_code(found))


if __name__ == "__main__":
    typer.run(main)
