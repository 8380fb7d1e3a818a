"""``npmobilenet serve``: a model behind HTTP."""

from __future__ import annotations

import argparse

from npmobilenet.cli.options import add_model_options, load_model, natural, positive, probability
from npmobilenet.cli.terminal import on_a_line
from npmobilenet.errors import MissingDependencyError


def add_parser(commands: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the subcommand."""
    parser = commands.add_parser(
        "serve",
        help="answer photographs by HTTP",
        description="Answer POST requests to /classify, /features, /detect and /segment, whichever the network can do, "
        "with JSON; show a page at /, the state at /health, counts for Prometheus at /metrics. SIGTERM or Ctrl-C ends "
        "it when all that is in flight is answered.",
    )
    add_model_options(parser, positional=True)
    for option, kind, default, letter, what in (
        ("--top", positive, 5, "K", "classes of /classify"),
        ("--threshold", probability, 0.5, "T", "lowest score of /detect"),
    ):
        parser.add_argument(option, type=kind, default=default, metavar=letter, help=f"{what} (default %(default)s)")
    group = parser.add_argument_group("the server")
    group.add_argument("--host", default="127.0.0.1", help="address (default %(default)s: this machine alone)")
    group.add_argument("--port", type=natural, default=8000, help="default %(default)s; 0: one that is free")
    for option, default, letter, what in (
        ("--batch", 16, "N", "photographs that are computed together, at most"),
        ("--latency-ms", 50, "MS", "how long one waits for others of its batch, and a batch computes, at most"),
        ("--max-mb", 20, "MB", "of a request; more: 413"),
        ("--max-megapixels", 50, "MP", "of a photograph; more: 413"),
        ("--queue", 256, "N", "photographs that wait; more: 429"),
        ("--patience", 60, "S", "seconds for a request to arrive; longer: 408"),
    ):
        group.add_argument(option, type=positive, default=default, metavar=letter, help=f"{what} (default %(default)s)")
    return parser


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    try:
        from npmobilenet.serving.server import listen, serve
    except ImportError as error:
        raise MissingDependencyError(
            f'a server needs {error.name or "Starlette and uvicorn"}: pip install "npmobilenet[serve]"'
        ) from None
    from npmobilenet.serving.service import Limits, Service

    if options.port > 65535:
        raise ValueError(f"--port must be from 0 to 65535, got {options.port}")
    if not options.host:
        raise ValueError("--host must be an address or a name, got ''; 0.0.0.0 stands for all of this machine's")
    model = load_model(options)
    service = Service(
        model,
        batch=options.batch,
        latency=options.latency_ms / 1000,
        limits=Limits(
            body=options.max_mb << 20,
            pixels=options.max_megapixels * 1_000_000,
            queue=options.queue,
            uploads=max(1 << 29, options.max_mb << 21),
            patience=options.patience,
        ),
        options={"classify": {"top": options.top}, "detect": {"threshold": options.threshold}},
    )
    with listen(options.host, options.port) as listening:
        host, port = listening.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        service.warm_up()
        addresses = " ".join(f"/{task}" for task in service.tasks)
        serve(service, listening, lambda: print(f"{on_a_line(model.source)}: {address} {addresses}", flush=True))
    return 0
