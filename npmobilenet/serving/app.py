"""The service by HTTP: a Starlette application."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from importlib.resources import files
from time import perf_counter

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from npmobilenet.pipelines import PIPELINES
from npmobilenet.serving.forms import FormError, upload
from npmobilenet.serving.service import Answer, Service
from npmobilenet.text import binary_size, printable, to_json

GONE = 499  # who asked is not there any more: for the metrics, nobody reads it
PAGE_POLICY = (  # of what the page may load: nothing from elsewhere
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src blob: data:; connect-src 'self'"
)


def make_app(service: Service) -> Starlette:
    """Return the application of a service, which ends with it."""
    web = _Web(service)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.close)

    routes = [
        Route("/", web.page),
        Route("/health", web.health),
        Route("/metrics", web.metrics),
        *(Route(f"/{task}", web.looks(task), methods=["POST"]) for task in PIPELINES),
    ]
    return Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _no_such_page})


async def _no_such_page(request: Request, error: HTTPException) -> Response:
    say = f"{request.method} {printable(request.url.path, 100)}: {error.detail}"
    return _json(Answer(error.status_code, {"error": say}), error.headers)


def _json(answer: Answer, headers: dict[str, str] | None = None) -> Response:
    """One line of JSON."""
    headers = dict(headers or {})
    if answer.retry_after is not None:
        headers["Retry-After"] = str(answer.retry_after)
    return Response(to_json(answer.told) + "\n", answer.status, headers, "application/json")


class _BodyError(Exception):
    """The body of a request is refused."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer)
        self.answer = answer


class _Web:
    """What is at which address."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._held = 0  # bytes of requests that are not answered yet
        page = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
        self._page = HTMLResponse(page, headers={"Content-Security-Policy": PAGE_POLICY})

    async def page(self, _: Request) -> Response:
        return self._page

    async def health(self, _: Request) -> Response:
        return _json(Answer(200, self.service.about()))

    async def metrics(self, _: Request) -> Response:
        return PlainTextResponse(self.service.metrics.text(), media_type="text/plain; version=0.0.4")

    def looks(self, task: str) -> Callable[[Request], Awaitable[Response]]:
        """Return what answers requests to look at a photograph."""

        async def look(request: Request) -> Response:
            begun, status = perf_counter(), GONE
            self.service.in_flight += 1
            try:
                response = await self._look(task, request)
                status = response.status_code
                return response
            except ClientDisconnect:
                return Response(status_code=GONE)
            finally:
                self.service.in_flight -= 1
                self.service.metrics.answered(f"/{task}", status, perf_counter() - begun)

        return look

    async def _look(self, task: str, request: Request) -> Response:
        held = _Held(self)
        try:
            body = await self._body(request, held)
            photograph = upload(request.headers.get("content-type", ""), body)
            del body
            answer = asyncio.ensure_future(self.service.answer(task, *photograph))
            gone = asyncio.ensure_future(request.receive())  # after the body there is nothing but the end
            try:
                await asyncio.wait({answer, gone}, return_when=asyncio.FIRST_COMPLETED)
                if not answer.done():
                    raise ClientDisconnect
                return _json(answer.result())
            finally:
                answer.cancel()
                gone.cancel()
        except _BodyError as error:
            return _json(error.answer, {"Connection": "close"})
        except FormError as error:
            return _json(Answer(400, {"error": str(error)}))
        finally:
            held.release()

    async def _body(self, request: Request, held: _Held) -> bytes:
        """Read a body. Of one that is too long the rest is read too, within reason: else nobody reads the answer."""
        limits = self.service.limits
        try:
            body = await asyncio.wait_for(self._read(request, held), limits.patience)
        except asyncio.TimeoutError:
            late = f"the request did not arrive within {limits.patience:g} seconds"
            raise _BodyError(Answer(408, {"error": late})) from None
        if body is None:
            long = f"the request has more than {binary_size(limits.body)}: send a smaller photograph"
            raise _BodyError(Answer(413, {"error": long}))
        return body

    async def _read(self, request: Request, held: _Held) -> bytes | None:
        limits, body, length = self.service.limits, bytearray(), 0
        announced = request.headers.get("content-length", "")
        if announced.isdecimal() and int(announced) > 4 * limits.body:
            return None
        async for chunk in request.stream():
            length += len(chunk)
            if length > 4 * limits.body:
                return None
            if length > limits.body:
                body.clear()
                continue
            if not held.take(len(chunk)):
                busy = "too many bytes are under way: try again later"
                raise _BodyError(Answer(429, {"error": busy}, self.service.retry_after()))
            body += chunk
        return bytes(body) if length <= limits.body else None


class _Held:
    """The bytes of one request, among those of all."""

    def __init__(self, web: _Web) -> None:
        self._web, self._mine = web, 0

    def take(self, number: int) -> bool:
        if self._web._held + number > self._web.service.limits.uploads:
            return False
        self._mine += number
        self._web._held += number
        return True

    def release(self) -> None:
        self._web._held -= self._mine
