"""`memfeat serve`: a web page that scores videos."""

import secrets
import socket
from contextlib import suppress
from importlib.util import find_spec
from typing import TYPE_CHECKING

import click

from memfeat.cli.options import LOCATION, say, settings_options
from memfeat.cli.predict import runs_of
from memfeat.config import READY, ServeConfig
from memfeat.errors import ConfigError, ExitCode

if TYPE_CHECKING:
    from collections.abc import Callable

    from memfeat.prediction import Predictor, RatingPredictor
    from memfeat.storage import Location


@click.command("serve", epilog="Example: memfeat serve runs/mine --open")
@click.argument("run_folder", type=LOCATION, metavar="RUN")
@settings_options(ServeConfig)
@click.option("--open", "open_browser", is_flag=True, help="Open the page in the usual browser.")
def serve_command(run_folder: "Location", config: ServeConfig, open_browser: bool) -> int:
    """Score videos in a web page, on this machine.

    Prints the page's address, and serves it until Ctrl-C: drop videos on it to see score, interval
    and timeline, to compare up to six, and to download the results. It has a JSON API of the same
    functions, which /docs at that address describes.

    RUN is a run's folder or URL, or `resmem` or `vitmem`, as for `memfeat predict`. Videos are
    deleted as soon as they are scored. Only this machine can reach the page, unless --host says
    otherwise: then its address holds a secret, which is to be shared with those who may use it.
    """
    runs = runs_of(run_folder, config)
    if None in map(find_spec, ("fastapi", "fastapi_offline", "uvicorn")):
        raise ConfigError("memfeat serve needs more packages: pip install 'memfeat[serve]'")
    from memfeat.workers import prepare_workers

    prepare_workers("memfeat.decoding.worker")

    import uvicorn

    from memfeat.prediction import RATERS, load_predictor
    from memfeat.serving import LOOPBACK, Guard, ScoringQueue, create_app
    from memfeat.storage import scratch_folder

    main = load_predictor(runs, device=config.device, weights=config.weights)
    scorers: dict[str, Callable[[], Predictor | RatingPredictor]] = {run_folder.name: lambda: main}
    if find_spec("resmem") is not None and "resmem" not in scorers:
        scorers["resmem"] = lambda: load_predictor("resmem", device=config.device)

    def notes(scorer: str) -> list[str]:
        if scorer in READY:
            return list(RATERS.get(scorer).cautions.values())
        return [*main.notes(), *main.sources]

    is_local = config.host in LOOPBACK | {"::1"}
    secret = "" if is_local else secrets.token_urlsafe(16)
    with (
        scratch_folder() as folder,
        ScoringQueue(folder, scorers, config) as queue,
        _listening(config) as listener,
    ):
        own = "[::1]" if listener.family == socket.AF_INET6 else "127.0.0.1"
        name = own if is_local else socket.gethostname()
        address = f"http://{name}:{listener.getsockname()[1]}/{secret}"
        app = Guard(create_app(queue, config, notes, secret), LOOPBACK if is_local else None)
        click.echo(address)
        say("stop with Ctrl-C")
        if open_browser:
            click.launch(address)
        settings = uvicorn.Config(
            app,
            log_level="warning",
            timeout_graceful_shutdown=5,
            timeout_keep_alive=30,
            limit_concurrency=512,
            server_header=False,
        )
        with suppress(KeyboardInterrupt):  # which is how it is stopped
            uvicorn.Server(settings).run(sockets=[listener])
    return ExitCode.DONE


def _listening(config: ServeConfig) -> socket.socket:
    try:
        family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
        return socket.create_server((config.host.strip("[]"), config.port), family=family)
    except OSError as error:
        raise ConfigError(
            f"cannot listen at {config.host}, port {config.port}: {error.strerror}; give another "
            "--port, or 0 for any that is free"
        ) from error
