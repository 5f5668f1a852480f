"""`python -m server`: arguments, then the server until Ctrl-C (at once) or SIGTERM (calls may go on for `drain_s`).

In: the command line and a profile. Out: the URL to open, on standard output. Exit codes: 0 ended, 2 wrong arguments,
profile or preset (said before anything listens), 3 the port is taken. Remembers: nothing.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Annotated, Any, Literal

import typer
import uvicorn

from server import logs, seams, tls
from server.house import House
from server.ice import Ice, is_loopback
from server.local_mic import DEFAULT, choose, listed
from server.pcm_wire import MAX_AUDIO_BYTES
from server.port_audio import PortAudio
from server.presenter import Filming, Presenter
from server.security import guard, with_token
from server.studio import build_studio
from server.virtual_camera import VirtualCamera
from svp_stream.config import Config, check, load_config
from svp_stream.errors import SvpError

EXIT_WRONG = 2
EXIT_TAKEN = 3
AGENT_PING_S = 5.0
"""An agent that answers no WebSocket ping for so long has gone, though its connection has not."""


class Announcing(uvicorn.Server):
    """Says where to go as soon as it listens."""

    def __init__(self, config: uvicorn.Config, settings: Config, house: House) -> None:
        super().__init__(config)
        self._house = house
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None
        self._settings = settings

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM drains first; a second one, or Ctrl-C, ends at once."""
        if sig == signal.SIGTERM and self._draining is None and not self.should_exit and self._loop is not None:
            self._loop.call_soon_threadsafe(self._drain)
        else:
            super().handle_exit(sig, frame)

    def _drain(self) -> None:
        if self._draining is None and self._loop is not None:
            self._draining = self._loop.create_task(self._drained(), name="drain")

    async def _drained(self) -> None:
        await self._house.drain(self._settings.server.drain_s)
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then the URL on standard output."""
        await super().startup(sockets)
        self._loop = asyncio.get_running_loop()
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            self._house.url = page_url(self._settings, port)
            typer.echo(f"open {self._house.url}")


def page_url(settings: Config, port: int, page: str = "") -> str:
    """Where a person opens the page; a token rides in the fragment, which browsers do not send."""
    server = settings.server
    scheme = "https" if server.secure else "http"
    host = "127.0.0.1" if is_loopback(server.host) else server.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{port}/{page}" + (f"#token={server.token}" if server.token else "")


def overridden(config: Config, **given: dict[str, Any]) -> Config:
    """The profile with what the command line gave (None: not given); raises `ConfigError`."""
    data = config.model_dump()
    for section, values in given.items():
        data[section] |= {key: value for key, value in values.items() if value is not None}
    return check(data, Config, "command line")


def main(
    style: Annotated[str | None, typer.Option(help="Style preset: a name, or the path of an .npz file.")] = None,
    avatar: Annotated[str | None, typer.Option(help="Who is shown first.")] = None,
    engine: Annotated[str | None, typer.Option(help="mini (the trained avatar), noop (a drawn face) or sd15.")] = None,
    model: Annotated[Path | None, typer.Option(help="Of the engine sd15: the folder that its training wrote.")] = None,
    config: Annotated[
        Path | None, typer.Option("--config", "--profile", help="Profile, a YAML file; see configs/.")
    ] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; a wider one wants a token.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.")] = None,
    capacity: Annotated[int | None, typer.Option(help="Calls at a time.")] = None,
    budget: Annotated[str | None, typer.Option(help="auto or off: whether sessions must fit the machine.")] = None,
    token: Annotated[str | None, typer.Option(envvar="SVP_TOKEN", help="What callers must know.")] = None,
    tls_files: Annotated[
        str | None, typer.Option("--tls", help="auto (a certificate of our own making), or CERT.pem,KEY.pem.")
    ] = None,
    echo_voice: Annotated[bool, typer.Option("--echo-voice", help="Play a caller's voice back, lip-synced.")] = False,
    background: Annotated[str | None, typer.Option(help="Behind the person: '#rrggbb' or a picture.")] = None,
    mic: Annotated[str | None, typer.Option(help="Stage a session fed by this machine's microphone: [DEVICE].")] = None,
    list_mics: Annotated[bool, typer.Option("--list-mics", help="List this machine's microphones and end.")] = False,
    camera: Annotated[str | None, typer.Option(help="Show the avatar as a virtual camera: [DEVICE].")] = None,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
    log_format: Annotated[Literal["text", "json"], typer.Option(help="Lines for people or for machines.")] = "text",
) -> None:
    """Serve the avatar: speak into a browser, and it speaks with you."""
    try:
        logs.configure(log_level, log_format)
        if list_mics:
            typer.echo(listed(PortAudio().devices()))
            raise typer.Exit
        settings = overridden(
            load_config(config),
            server={"host": host, "port": port, "capacity": capacity, "budget": budget, "token": token},
            model={"engine": engine or ("sd15" if model else None), "avatar": avatar, "folder": model},
            style={"default": style},
            media={"background": background},
        )  # fmt: skip
        settings = tls.settled(settings, tls_files, datetime.now(UTC))
        settings = settings.model_copy(update={"server": with_token(settings.server)})
        house = House(
            build_studio(settings), guard(settings.server), capacity=settings.server.capacity,
            media=settings.media, echo=echo_voice, settings=settings.server, paths=Ice(settings.ice),
        )  # fmt: skip
        present(house, settings, mic, camera)
    except (SvpError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_WRONG) from None
    if is_loopback(settings.server.host):
        seams.gather_loopback()
    raise typer.Exit(serve(house, settings))


def present(house: House, settings: Config, mic: str | None, camera: str | None) -> None:
    """What a presenter at this machine asks for; raises `MicError`, `ConfigError` for devices that are not there."""
    if mic is not None:
        microphones = PortAudio()
        choose(microphones.devices(), mic)
        where = house.signaling, house.readiness
        house.companions.append(Presenter(*where, microphones, mic, lambda: house.url, typer.echo).run)
    if camera is not None:
        device = VirtualCamera(camera, settings.media.size or house.studio.engine.size)
        typer.echo(f"camera {device.device}", err=True)
        house.companions.append(Filming(house.signaling, device).run)


def with_values(arguments: list[str]) -> list[str]:
    """The command line with `default` for each device that is asked for without a name (`--mic --port 9000`)."""
    out = []
    for argument, after in zip(arguments, [*arguments, "-"][1:], strict=True):
        out.append(argument)
        if argument in ("--mic", "--camera") and after.startswith("-"):
            out.append(DEFAULT)
    return out


def serve(house: House, settings: Config) -> int:
    """Until told to stop; the exit code."""
    server = Announcing(
        uvicorn.Config(
            house.app,
            host=settings.server.host,
            port=settings.server.port,
            ssl_certfile=settings.server.tls_certificate,
            ssl_keyfile=settings.server.tls_key,
            log_config=None,
            access_log=False,
            ws_max_size=2 * MAX_AUDIO_BYTES,
            ws_ping_interval=AGENT_PING_S,
            ws_ping_timeout=AGENT_PING_S,
            ws_per_message_deflate=False,
            loop="asyncio",
            timeout_graceful_shutdown=5,
            server_header=False,
        ),
        settings,
        house,
    )
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that it could not bind
        return EXIT_TAKEN
    except KeyboardInterrupt:  # raised again by uvicorn after a graceful end
        return 0
    return 0


if __name__ == "__main__":
    sys.argv[1:] = with_values(sys.argv[1:])
    typer.run(main)
