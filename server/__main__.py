"""`python -m server`: arguments, then the server until Ctrl-C.

In: the command line and a profile. Out: the URL to open, on standard output. Exit codes: 0 ended, 2 wrong arguments,
profile or preset (said before anything listens), 3 the port is taken. Remembers: nothing.
"""

from __future__ import annotations

import socket
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import typer
import uvicorn

from server import logs, seams, tls
from server.house import House
from server.ice import Ice, is_loopback
from server.security import guard
from server.studio import build_studio
from svp_stream.config import Config, check, load_config
from svp_stream.errors import SvpError

EXIT_WRONG = 2
EXIT_TAKEN = 3


class Announcing(uvicorn.Server):
    """Says where to go as soon as it listens."""

    def __init__(self, config: uvicorn.Config, settings: Config) -> None:
        super().__init__(config)
        self._settings = settings

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then the URL on standard output."""
        await super().startup(sockets)
        if self.started:
            port = self.servers[0].sockets[0].getsockname()[1]
            typer.echo(f"open {page_url(self._settings, port)}")


def page_url(settings: Config, port: int) -> str:
    """Where a person opens the page; a token rides in the fragment, which browsers do not send."""
    server = settings.server
    scheme = "https" if server.secure else "http"
    host = "127.0.0.1" if is_loopback(server.host) else server.host
    if host in ("0.0.0.0", "::"):
        host = socket.gethostname()
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{port}/" + (f"#token={server.token}" if server.token else "")


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
    config: Annotated[Path | None, typer.Option(help="Profile, a YAML file; see configs/.")] = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on; not loopback needs --token.")] = None,
    port: Annotated[int | None, typer.Option(help="Port to listen on; 0 picks a free one.")] = None,
    capacity: Annotated[int | None, typer.Option(help="Calls at a time.")] = None,
    token: Annotated[str | None, typer.Option(envvar="SVP_TOKEN", help="What callers must know.")] = None,
    tls_files: Annotated[
        str | None, typer.Option("--tls", help="auto (a certificate of our own making), or CERT.pem,KEY.pem.")
    ] = None,
    echo_voice: Annotated[bool, typer.Option("--echo-voice", help="Play a caller's voice back, lip-synced.")] = False,
    log_level: Annotated[str, typer.Option(help="debug, info, warning or error.")] = "info",
) -> None:
    """Serve the avatar: speak into a browser, and it speaks with you."""
    try:
        logs.configure(log_level)
        settings = overridden(
            load_config(config),
            server={"host": host, "port": port, "capacity": capacity, "token": token},
            model={"engine": engine or ("sd15" if model else None), "avatar": avatar, "folder": model},
            style={"default": style},
        )
        settings = tls.settled(settings, tls_files, datetime.now(UTC))
        house = House(
            build_studio(settings), guard(settings.server), capacity=settings.server.capacity,
            media=settings.media, echo=echo_voice, paths=Ice(settings.ice),
        )  # fmt: skip
    except (SvpError, ValueError) as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(EXIT_WRONG) from None
    if is_loopback(settings.server.host):
        seams.gather_loopback()
    raise typer.Exit(serve(house, settings))


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
            loop="asyncio",
            timeout_graceful_shutdown=5,
            server_header=False,
        ),
        settings,
    )
    try:
        server.run()
    except SystemExit:  # uvicorn's way to say that it could not bind
        return EXIT_TAKEN
    except KeyboardInterrupt:  # raised again by uvicorn after a graceful end
        return 0
    return 0


if __name__ == "__main__":
    typer.run(main)
