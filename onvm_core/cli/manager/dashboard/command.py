"""``onvm dashboard``."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from onvm_core.cli.options import NameOption
from onvm_core.export.listen import listen_address, read_token
from onvm_sdk.errors import PluginError

__all__ = ["dashboard"]


def dashboard(
    listen: Annotated[
        str, typer.Option("--listen", metavar="ADDRESS:PORT", help="Where browsers find it.")
    ] = "127.0.0.1:8640",
    token_file: Annotated[
        Path | None,
        typer.Option(
            "--token-file",
            metavar="FILE",
            help="A token that viewers must give.",
            show_default="none; needed where others can reach it",
        ),
    ] = None,
    interval: Annotated[
        float, typer.Option(min=0.2, max=60, metavar="S", help="Seconds between two readings.")
    ] = 1.0,
    name: NameOption = "main",
) -> None:
    """Show a manager in a web browser, live, until Ctrl-C.

    Chains with their rates, instances, cores, drops by reason, scale decisions, events and the
    hosts of a cluster. It loads nothing from elsewhere, and changes nothing.

    Examples:
        onvm dashboard
        onvm dashboard --listen 0.0.0.0:8640 --token-file token
    """
    address, port = listen_address(listen, "--listen")
    token = read_token(token_file, address, "--token-file")
    for package in ("starlette", "uvicorn"):
        if find_spec(package) is None:
            raise PluginError(
                f"expected the package {package}; run: pip install 'onvm[dashboard]'",
                field="dashboard",
            )
    import uvicorn

    from onvm_core.cli.manager.dashboard.server import make_app
    from onvm_core.cli.manager.dashboard.source import Source

    hosts = ["*"] if token is not None else ["localhost", "127.0.0.1", "[::1]", str(address)]
    app = make_app(Source(name, interval / 2), interval, token, hosts)
    shown = f"[{address}]" if address.version == 6 else str(address)
    config = uvicorn.Config(
        app, host=str(address), port=port, log_level="warning", timeout_graceful_shutdown=1
    )
    server = uvicorn.Server(config)
    sock = config.bind_socket()
    sock.listen()  # before the address is shown
    print(f"http://{shown}:{sock.getsockname()[1]}/{'?token=…' if token else ''}", flush=True)
    server.run(sockets=[sock])
