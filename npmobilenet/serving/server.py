"""The application on a port, until a signal asks it to end."""

from __future__ import annotations

import asyncio
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from npmobilenet.serving.app import make_app
from npmobilenet.serving.service import Service

KEEP_ALIVE = 20  # seconds, of a connection between two requests
SHUTDOWN = 30  # seconds, for what is in flight
BACKLOG = 2048  # connections that wait to be accepted


class _Protocol(H11Protocol):
    """A connection; one on which a request is not begun, or not told whole up to its body, in time is closed."""

    patience = 60.0
    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:
        super().connection_made(transport)
        self._wait()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is None or self.cycle.response_complete:
            self._wait()
        elif self._timer:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        if not self._timer:
            self._timer = self.loop.call_later(self.patience, self.transport.close)

    def connection_lost(self, reason: Exception | None) -> None:
        super().connection_lost(reason)
        if self._timer:
            self._timer.cancel()


class _Server(uvicorn.Server):
    """Ends in order by SIGTERM and SIGINT: what is in flight is answered, and that is a success."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGTERM, signal.SIGINT)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket on that address; port 0: any that is free.

    Raises
    ------
    OSError
        If there is none.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        reason = str(error.strerror or error).partition(" (while")[0]
        raise OSError(error.errno, f"{host}:{port}: {reason}") from None
    listening.set_inheritable(True)
    return listening


def serve(service: Service, listening: socket.socket, ready: Callable[[], None] = lambda: None) -> None:
    """Answer until a signal comes; ``ready`` is called when requests are."""
    protocol = type("Protocol", (_Protocol,), {"patience": service.limits.patience})
    config = uvicorn.Config(
        make_app(service),
        http=protocol,
        ws="none",
        log_level="error",
        access_log=False,
        server_header=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=SHUTDOWN,
    )
    _Server(config, ready).run([listening])
