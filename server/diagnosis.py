"""What facts about this machine and profile mean for callers. Pure: `server.doctor` finds the facts.

In: facts. Out: findings: ok, warning (some callers or uses will fail) or problem (calls will fail), with what to do.
Remembers: nothing.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal

from server.ice import is_loopback
from svp_stream.config import Ice, Server

FRAME_MS: Final = 40.0
BUSY_SHARE: Final = 0.8
"""So much of the processor may go into pictures; the rest is for the network, the encoder and the system."""

Level = Literal["ok", "warning", "problem"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One line: `subject` is what was looked at, `words` what was found, `remedy` what to do about it."""

    level: Level
    subject: str
    words: str
    remedy: str = ""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a STUN or TURN server said: the address that it gave, or its failure in words."""

    url: str
    address: str | None
    failure: str | None
    took_ms: float


def of_port(host: str, port: int, failure: str | None) -> Finding:
    """Whether the server can listen; `failure` in words, None when it can."""
    where = f"{host} port {port or 'any'}"
    if failure is None:
        return Finding("ok", "port", f"{where} is free")
    return Finding(
        "problem", "port", f"{where} cannot be had: {failure}",
        "is a server running there already? if not, choose another with --port or --host",
    )  # fmt: skip


def of_origin(server: Server) -> list[Finding]:
    """Who can reach the page, and whether a browser gives it a microphone."""
    if is_loopback(server.host):
        words = "callers on this machine only; browsers take that for secure, the microphone works"
        return [Finding("ok", "origin", words)]
    found = []
    if server.token is None:
        found.append(Finding(
            "problem", "token", f"{server.host} can be reached from other machines, and there is no token",
            "give one of at least 16 characters with --token or server.token",
        ))  # fmt: skip
    if not server.secure:
        found.append(Finding(
            "warning", "origin", "over http to another machine no browser gives a microphone; watching works",
            "serve https with --tls auto, or put a proxy with a certificate in front",
        ))  # fmt: skip
    elif server.tls == "auto":
        words = "https with a certificate of our own making: browsers warn once, then the microphone works"
        found.append(Finding("ok", "origin", words))
    else:
        found.append(Finding("ok", "origin", "https: the microphone works"))
    return found


def of_addresses(host: str, addresses: Sequence[str], ice: Ice) -> Finding:
    """Which addresses callers are told for the media."""
    told = [str(ice.advertise)] if ice.advertise is not None else []
    outer = [a for a in addresses if not ipaddress.ip_address(a).is_loopback]
    if is_loopback(host):
        return Finding("ok", "addresses", "127.0.0.1" + "".join(f", {a}" for a in [*outer, *told]))
    if not outer and not told:
        return Finding(
            "problem", "addresses", "this machine has no address but loopback, so no media reaches it",
            "connect it to a network, or say the address that others reach it by in ice.advertise",
        )  # fmt: skip
    private = all(ipaddress.ip_address(a).is_private for a in [*outer, *told])
    if private and not ice.turn and not ice.stun:
        return Finding(
            "warning", "addresses", f"{', '.join([*outer, *told])}: private, only callers of this network reach them",
            "for callers from outside set ice.advertise (a port forward, Docker) or ice.turn",
        )  # fmt: skip
    return Finding("ok", "addresses", ", ".join([*told, *outer]))


def of_udp(ports: tuple[int, int] | None, taken: int, addresses: int, capacity: int) -> Finding:
    """Whether there are UDP ports for all calls; `addresses`: local ones, each call needs a port at each."""
    if ports is None:
        return Finding("ok", "media ports", "any UDP port; a firewall must let them all in, or set ice.port_range")
    size = ports[1] - ports[0] + 1
    where = f"UDP {ports[0]}-{ports[1]}"
    needed = capacity + 1  # one more, for a call that restarts ICE has two paths for a moment
    if size - taken <= 0:
        return Finding("problem", "media ports", f"{where}: all are taken", "choose another ice.port_range")
    if size - taken < needed:
        return Finding(
            "warning", "media ports", f"{where}: {size - taken} free, for {capacity} sessions and their restarts",
            f"widen ice.port_range to at least {needed} ports, and one for each viewer",
        )  # fmt: skip
    at = "" if addresses < 2 else f" at each of {addresses} addresses"
    return Finding("ok", "media ports", f"{where}: {size - taken} of {size} free{at}; open them in the firewall")


def of_stun(asked: Asked, addresses: Sequence[str]) -> Finding:
    """What a STUN server sees of us."""
    if asked.failure is not None:
        remedy = "calls wait up to 1 s for it, then go on; fix or remove it in ice.stun"
        return Finding("warning", "STUN", f"{asked.url} {asked.failure}", remedy)
    if asked.address is None or asked.address in addresses:
        return Finding("ok", "STUN", f"{asked.url} answers in {asked.took_ms:.0f} ms; no NAT before this machine")
    return Finding("ok", "STUN", f"{asked.url} answers in {asked.took_ms:.0f} ms; it sees us as {asked.address}")


def of_turn(asked: Asked, *, policy: str, alone: bool) -> Finding:
    """Whether a relay can be had; `alone`: no other TURN server works."""
    if asked.failure is not None:
        level: Level = "problem" if policy == "relay" and alone else "warning"
        remedy = "callers behind strict firewalls depend on it" if level == "warning" else "no call comes about"
        return Finding(level, "TURN", f"{asked.url} {asked.failure}", remedy)
    relay = str(asked.address)
    if ipaddress.ip_address(relay).is_private and not ipaddress.ip_address(relay).is_loopback:
        return Finding(
            "warning", "TURN", f"{asked.url} relays at {relay}, an address of a private network",
            "only callers of that network reach it; coturn behind a NAT needs external-ip",
        )  # fmt: skip
    return Finding("ok", "TURN", f"{asked.url} relays at {relay}, had in {asked.took_ms:.0f} ms")


def of_credentials(ice: Ice) -> list[Finding]:
    """How callers prove themselves to TURN."""
    if not ice.turn:
        words = "none: callers behind strict firewalls (offices, some mobile networks) cannot connect"
        return [Finding("ok", "TURN", words, "set ice.turn when such callers matter")]
    if ice.secret is None:
        words = "every caller is told the same user name and credential, which never expire"
        return [Finding("warning", "TURN", words, "use ice.secret with coturn's --use-auth-secret")]
    return []


def of_codec(name: str, library: str, *, present: bool, needed: bool) -> Finding:
    """Whether PyAV has an encoder."""
    if present:
        return Finding("ok", "codec", f"{name} ({library})")
    remedy = "install PyAV from PyPI, whose FFmpeg has it; one built against another FFmpeg may lack it"
    return Finding("problem" if needed else "warning", "codec", f"{name}: PyAV has no {library}", remedy)


def of_model(engine: str, files: int, failure: str | None) -> Finding:
    """Whether the weights are there and whole."""
    if failure is not None:
        return Finding("problem", "model", failure, "fetch the weights again, or name their folder in model.weights")
    words = "needs no weights" if files == 0 else f"{files} files, all as their hashes say"
    return Finding("ok", "model", f"{engine}: {words}")


def of_budget(frame_ms: float, cores: int, capacity: int, load: float) -> Finding:
    """How many sessions the processor holds; `frame_ms`: wall time of one frame, its model on all the cores it uses."""
    fit = int(FRAME_MS * BUSY_SHARE / frame_ms) if frame_ms > 0 else capacity
    words = f"{frame_ms:.1f} of the {FRAME_MS:.0f} ms of a frame on {cores} cores: room for {fit} sessions"
    if load > cores * 0.7:
        words += f" (measured on a busy machine: load {load:.1f})"
    if fit == 0:
        return Finding("problem", "processor", words, "stop other work, use a faster machine, or a smaller model")
    if fit < capacity:
        return Finding(
            "warning", "processor", f"{words}, server.capacity is {capacity}",
            f"set server.capacity to {fit}; beyond it pictures get worse",
        )  # fmt: skip
    return Finding("ok", "processor", words)


def exit_code(findings: Sequence[Finding]) -> int:
    """1 when calls will fail, else 0."""
    return 1 if any(f.level == "problem" for f in findings) else 0


def table(findings: Sequence[Finding]) -> str:
    """For people: one line for each finding, and one for what to do."""
    lines = []
    for f in findings:
        lines.append(f"{f.level:<8} {f.subject:<12} {f.words}")
        if f.remedy:
            lines.append(f"{'':<21} -> {f.remedy}")
    counts = {level: sum(f.level == level for f in findings) for level in ("problem", "warning")}
    lines.append(f"\n{counts['problem']} problems, {counts['warning']} warnings")
    return "\n".join(lines)


def listed(findings: Sequence[Finding]) -> list[dict[str, str]]:
    """For programs."""
    return [asdict(f) for f in findings]
