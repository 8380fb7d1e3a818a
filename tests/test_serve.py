"""The server: what it answers, what it refuses, and that nothing brings it down."""

import asyncio
import base64
import io
import json
import runpy
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPConnection, HTTPException

import numpy as np
import pytest

import npmobilenet
from npmobilenet.serving.forms import LONGEST_HEADERS, FormError, upload
from npmobilenet.serving.metrics import Metrics
from npmobilenet.serving.service import Answer, Limits, Service
from tests.conftest import EXAMPLES, compiled_only, no_kernels, photo
from tests.pictures import png

# Forms -----------------------------------------------------------------------------------------------------


def form(*parts, boundary="b0undary", end="--\r\n"):
    """A body of parts: (headers, content)."""
    body = b"".join(b"--%s\r\n%s\r\n\r\n%s\r\n" % (boundary.encode(), head.encode(), data) for head, data in parts)
    return f"multipart/form-data; boundary={boundary}", body + f"--{boundary}{end}".encode()


FILE = 'Content-Disposition: form-data; name="image"; filename="{}"\r\nContent-Type: image/png'


@no_kernels
def test_the_photograph_of_a_form():
    content = b"\x89PNG\r\n\r\n--b0undar\r\n--\0"
    for name, shown in (
        ("cat.png", "cat.png"),
        ("../../etc/passwd", "passwd"),
        (r"C:\fakepath\cat.png", "cat.png"),
        ("a\0\x1b[2Jb", r"a\x00\x1b[2Jb"),
        ("x" * 5000, "x" * 199 + "…"),
        ("", ""),
    ):
        assert upload(*form((FILE.format(name), content))) == (content, shown)
    field = ('Content-Disposition: form-data; name="note"', b"of a cat")
    assert upload(*form(field, (FILE.format("a"), content), field)).content == content
    assert upload(*form(("content-disposition: form-data; name=file", content))).content == content
    kind, body = form((FILE.format("a"), content))
    assert upload(kind.replace("b0undary", '"b0undary"'), b"preamble\r\n" + body).content == content
    for kind in ("image/png", "", "application/x-www-form-urlencoded", "text/html; charset=utf-8"):
        assert upload(kind, content) == (content, None)


@no_kernels
@pytest.mark.parametrize(
    ("kind", "body", "message"),
    [
        ("image/png", b"", "the request has no content"),
        ("multipart/form-data", b"x", "a form without a boundary"),
        ("multipart/form-data; boundary=b", b"no form", "the form's boundary is not in it"),
        (*form((FILE.format("a"), b"")), "the request has no content"),
        (*form(), "0 files in the form"),
        (*form((FILE.format("a"), b"1"), (FILE.format("b"), b"2")), "2 files in the form: expected one"),
        (form()[0], form((FILE.format("a"), b"1"))[1][:-10], "the form is cut short"),
        (form()[0], b"--b0undary\r\nContent-", "the headers of a part of the form have no end"),
        (*form((FILE.format("a" * LONGEST_HEADERS), b"1")), f"or more than {LONGEST_HEADERS} bytes"),
        (*form(*[('Content-Disposition: form-data; name="n"', b"")] * 40), "more than 32 parts"),
    ],
)
def test_what_is_no_form_with_a_photograph(kind, body, message):
    with pytest.raises(FormError, match=message):
        upload(kind, body)


# Metrics ---------------------------------------------------------------------------------------------------


@no_kernels
def test_metrics():
    metrics = Metrics(lambda: 3, lambda: 4)
    for status, seconds in ((200, 0.003), (200, 0.3), (429, 20.0)):
        metrics.answered("/classify", status, seconds)
    metrics.computed(5)
    lines = metrics.text().splitlines()
    for line in (
        'npmobilenet_requests_total{path="/classify",status="200"} 2',
        'npmobilenet_errors_total{path="/classify"} 1',
        "npmobilenet_queue_length 3",
        "npmobilenet_in_flight 4",
        'npmobilenet_request_seconds_bucket{path="/classify",le="0.005"} 1',
        'npmobilenet_request_seconds_bucket{path="/classify",le="0.5"} 2',
        'npmobilenet_request_seconds_bucket{path="/classify",le="+Inf"} 3',
        'npmobilenet_request_seconds_sum{path="/classify"} 20.303',
        'npmobilenet_request_seconds_count{path="/classify"} 3',
        'npmobilenet_batch_size_bucket{le="4"} 0',
        'npmobilenet_batch_size_bucket{le="8"} 1',
    ):
        assert line in lines
    assert lines.count("# TYPE npmobilenet_request_seconds histogram") == 1


# The service, without HTTP ---------------------------------------------------------------------------------


@pytest.fixture
def service(pets):
    service = Service(npmobilenet.load(pets), threads=2, options={"classify": {"top": 1}})
    yield service
    service.close()


@compiled_only
def test_answers(service, thumbnails):
    """As the command's JSON, bit for bit, however many ask."""
    service.warm_up()
    model, files = service.model, sorted(thumbnails.iterdir()) * 3
    assert list(service.tasks) == ["classify", "features"] and set(service.problems) == {"detect", "segment"}

    async def ask(task):
        return await asyncio.gather(*(service.answer(task, file.read_bytes(), file.name) for file in files))

    for file, answer in zip(files, asyncio.run(ask("classify")), strict=True):
        (best,) = model.classify(file, 1)
        assert answer == (200, {"image": file.name, "predictions": [best._asdict()]}, None)
    for file, answer in zip(files, asyncio.run(ask("features")), strict=True):
        found = np.array(answer.told["features"], np.float32)
        assert np.array_equal(found, model.features(model.preprocess(file)[None])[0])
    assert "npmobilenet_batch_size_sum 24" in service.metrics.text()


HOSTILE = {
    "nothing like a picture": (b"This is a text.\n" * 9, 400, "not an image"),
    "html": (b"<html><script>alert(1)</script></html>", 400, "not an image"),
    "png signature": (b"\x89PNG\r\n\x1a\n", 400, "image bytes: "),
    "png of no pixels": (png(0, 1, 8, 0, b"\0"), 400, "image bytes: "),
    "bomb": (png(60000, 60000, 8, 0, b"\0"), 413, "3600000000 pixels"),
    "larger than the limit": (png(8000, 8000, 8, 0, b"\0"), 413, "64000000 pixels are more than the limit of 50000000"),
    "cut short": (photo("rocket.jpg").read_bytes()[:20000], 400, "damaged or cut short"),
    "zeros": (bytes(100000), 400, "not an image"),
}


@no_kernels
@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_photograph(service, name):
    """One line, of the right kind; and the next one is answered."""
    pytest.importorskip("PIL.Image")
    content, status, message = HOSTILE[name]
    answer = asyncio.run(service.answer("classify", content, "name"))
    assert answer.status == status and message in answer.told["error"] and "\n" not in answer.told["error"]


@no_kernels
def test_what_the_service_refuses(pets, monkeypatch):
    service = Service(npmobilenet.load(pets), threads=1, limits=Limits(queue=1))
    answer = asyncio.run(service.answer("detect", b""))
    assert answer.status == 404 and answer.told["error"].endswith("; this server has /classify, /features")
    assert "no such task: paint" in asyncio.run(service.answer("paint", b"")).told["error"]
    begun, go_on = threading.Event(), threading.Event()

    def prepare(content):
        begun.set()
        go_on.wait(30)
        raise OverflowError("of something")

    monkeypatch.setattr(service.tasks["classify"], "prepare", prepare)

    async def ask():
        first = asyncio.ensure_future(service.answer("classify", b"1"))
        await asyncio.to_thread(begun.wait, 30)
        second = asyncio.ensure_future(service.answer("classify", b"2"))
        await asyncio.sleep(0)
        third = await service.answer("classify", b"3")
        second.cancel()  # who asked is gone
        go_on.set()
        return await first, third

    first, third = asyncio.run(ask())
    assert first == Answer(500, {"image": None, "error": "OverflowError: of something"})
    assert third == Answer(429, {"error": "1 photograph waiting already: try again later"}, 1)
    service.close()


@compiled_only
def test_masks_and_boxes():
    """A mask is a picture of the numbers of labels."""
    image = pytest.importorskip("PIL.Image")
    content = photo("astronaut.png").read_bytes()
    service = Service(npmobilenet.load("selfie_segmentation"))
    told = asyncio.run(service.answer("segment", content)).told
    start = "data:image/png;base64,"
    assert told["mask"].startswith(start)
    mask = np.array(image.open(io.BytesIO(base64.b64decode(told["mask"][len(start) :]))))
    expected = service.model.segment(content)
    assert np.array_equal(mask, expected.mask) and told["share"] == expected.share
    service = Service(npmobilenet.load("ssdlite_mobilenet_v2_person"))
    told = asyncio.run(service.answer("detect", content)).told
    found = service.model.detect(content)
    assert [one["box"] for one in told["detections"]] == [one.box for one in found] and found


# By HTTP ---------------------------------------------------------------------------------------------------


def until(holds, seconds=60):
    """Wait until this is so; on a machine that does other things too it may take long."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


class Running:
    """``npmobilenet serve`` in a process."""

    def __init__(self, model, *options):
        command = [sys.executable, "-m", "npmobilenet", "serve", model, "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.said = self.process.stdout.readline()
        assert self.said, self.process.stderr.read()
        self.port = int(self.said.split()[1].rpartition(":")[2])

    def ask(self, path, body=None, headers=None, method=None):
        """Return the status, the headers and what is answered."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request(method or ("GET" if body is None else "POST"), path, body, headers or {})
            answer = connection.getresponse()
            content = answer.read()
        finally:
            connection.close()
        kind = answer.headers["Content-Type"]
        if kind == "application/json":
            assert content.endswith(b"\n") and content.count(b"\n") == 1
            return answer.status, answer.headers, json.loads(content)
        return answer.status, answer.headers, content.decode()

    def connect(self, text=b""):
        """A connection on which this is sent."""
        connection = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        connection.sendall(text)
        return connection

    def refuses(self):
        """Whether nobody listens any more."""
        try:
            self.connect().close()
        except OSError:
            return True
        return False

    def stop(self):
        """Ask it to end; what it said on standard error."""
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(60)
        said = self.process.stderr.read()
        self.process.stdout.close()
        self.process.stderr.close()
        assert code == 0, said
        return said


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """A checkpoint for images of 32x32."""
    pytest.importorskip(
        "starlette", reason='the server\'s packages are not installed: pip install "npmobilenet[serve]"'
    )
    pytest.importorskip("uvicorn", reason='the server\'s packages are not installed: pip install "npmobilenet[serve]"')
    pytest.importorskip("PIL.Image", reason="these tests read image files")
    from npmobilenet.architectures import get_architecture, random_weights

    preprocessing = npmobilenet.Preprocessing(32, (32, 32), None, (0.5,) * 3, (0.5,) * 3)
    metadata = {"classes": ["<b>cat</b>", "dog"], "preprocessing": preprocessing.to_dict()}
    weights = random_weights(get_architecture("mobilenet_v2").graph(0.25, 2))
    path = tmp_path_factory.mktemp("model") / "small.npz"
    return str(npmobilenet.export_weights(weights, path, metadata=metadata))


@pytest.fixture(scope="module")
def server(small):
    """A server with low limits."""
    limits = ("--max-mb", "1", "--max-megapixels", "1", "--queue", "3", "--patience", "1", "--top", "2")
    server = Running(small, *limits)
    yield server
    assert server.stop() == ""  # and so nothing unforeseen has been logged


@compiled_only
def test_pages(server):
    status, headers, page = server.ask("/")
    assert status == 200 and "default-src 'none'" in headers["Content-Security-Policy"]
    assert "http://" not in page and "https://" not in page  # nothing from elsewhere
    assert server.ask("/health")[::2] == (
        200,
        {"status": "ok", "model": "mobilenet_v2", "tasks": ["classify", "features"]},
    )
    status, headers, text = server.ask("/metrics")
    assert headers["Content-Type"].startswith("text/plain; version=0.0.4") and "npmobilenet_in_flight 0" in text
    assert server.ask("/nowhere")[::2] == (404, {"error": "GET /nowhere: Not Found"})
    assert server.ask("/classify")[::2] == (405, {"error": "GET /classify: Method Not Allowed"})


@compiled_only
def test_photographs_by_http(server, small, thumbnails):
    model = npmobilenet.load(small)
    for file in thumbnails.iterdir():
        content = file.read_bytes()
        predictions = [one._asdict() for one in model.classify(content, 2)]
        for headers in ({}, {"Content-Type": "image/jpeg"}, {"Content-Type": "text/html"}):
            assert server.ask("/classify", content, headers)[::2] == (200, {"image": None, "predictions": predictions})
        kind, body = form((FILE.format(f"../{file.name}"), content))
        told = {"image": file.name, "predictions": predictions}
        assert server.ask("/classify", body, {"Content-Type": kind})[::2] == (200, told)
        features = np.array(server.ask("/features", content)[2]["features"], np.float32)
        assert np.array_equal(features, model.features(model.preprocess(content)[None])[0])
    status, _, told = server.ask("/segment", content)
    assert status == 404 and "no scores for every pixel" in told["error"]


@compiled_only
def test_limits(server, thumbnails):
    """Too many bytes, announced or not; too many pixels; too many photographs; too slow."""
    for body in (bytes(3 << 20), iter([bytes(1 << 20)] * 3)):
        status, headers, told = server.ask("/classify", body)
        assert status == 413 and headers["Connection"] == "close"
        assert told == {"error": "the request has more than 1 MB: send a smaller photograph"}
    assert server.ask("/classify", png(1001, 1000, 8, 0, b"\0"))[0] == 413
    with server.connect(b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: 9999\r\n\r\nabc") as slow:
        assert slow.recv(1 << 16).startswith(b"HTTP/1.1 408 ")
    for first in (b"", b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n"):
        with server.connect(first) as slow, slow.makefile("rb") as answers:
            while first and not answers.readline().endswith(b"}\n"):
                pass  # up to the end of the first answer
            slow.sendall(b"POST /cla")
            assert answers.read() == b""  # it is closed
    content = (thumbnails / "coffee.png").read_bytes()
    with ThreadPoolExecutor(40) as pool:
        answers = [pool.submit(server.ask, "/classify", content) for _ in range(200)]
    statuses = {}
    for status, headers, _ in (one.result() for one in answers):
        statuses.setdefault(status, []).append(headers["Retry-After"])
    assert set(statuses) == {200, 429} and set(statuses[200]) == {None} and min(map(int, statuses[429])) >= 1


@compiled_only
def test_hostile_requests(server, small, thumbnails):
    """Many of them at once; none is answered by an error of the server's own, and it stands."""
    content = (thumbnails / "coffee.png").read_bytes()
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\n"
    kind, body = form((FILE.format("a" * 20000), content))
    streams = [
        head + b"Content-Length: 100000\r\n\r\n" + content[:500],  # and then nothing
        head + b"Content-Length: %d\r\n\r\n" % len(content) + content,  # nobody reads the answer
        head + b"Content-Length: -5\r\n\r\n",
        head + b"Content-Length: 99999999999999999999\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\nFFFFFFFF\r\nabc",
        head + b"Transfer-Encoding: chunked\r\n\r\nnonsense\r\n",
        head + b"X: " + b"y" * 200000 + b"\r\n\r\n",
        head + f"Content-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,  # TLS
        b"GET / HTTP/9.9\r\n\r\n",
        b"\0" * 1000,
    ]

    def send(stream):
        try:
            with server.connect(stream) as connection:
                connection.settimeout(0.2)
                return connection.recv(100)
        except OSError:
            return b""

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send, streams * 6))
    assert not any(answer.startswith(b"HTTP/1.1 5") for answer in answers)
    assert sum(answer.startswith(b"HTTP/1.1 4") for answer in answers) >= 12
    for name, (bad, status, message) in HOSTILE.items():
        found, _, told = server.ask("/classify", bad)
        assert found == status, name
        assert message.replace("50000000", "1000000") in told["error"]
    expected = [one._asdict() for one in npmobilenet.load(small).classify(content, 2)]
    assert server.ask("/classify", content)[2]["predictions"] == expected
    until(lambda: "npmobilenet_in_flight 0\n" in server.ask("/metrics")[2])  # those are gone, too, who asked in vain


@compiled_only
def test_what_is_in_flight_is_answered_before_the_end(small, thumbnails):
    content = (thumbnails / "coffee.png").read_bytes()
    server = Running(small)
    head = b"POST /classify HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(content)
    with server.connect(head + content[:100]) as connection:
        server.ask("/health")  # by now the other request has begun
        server.process.send_signal(signal.SIGTERM)
        until(server.refuses)
        assert server.process.poll() is None
        connection.sendall(content[100:])
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK")
        assert server.process.wait(60) == 0
    assert server.stop() == ""


@compiled_only
def test_what_cannot_be_served(server, small, capfd):
    from npmobilenet.cli import main

    assert main(["serve", small, "--port", str(server.port)]) == 1
    assert f"127.0.0.1:{server.port}: Address already in use" in capfd.readouterr().err
    assert main(["serve", small, "--port", "70000"]) == 1
    assert "--port must be from 0 to 65535, got 70000" in capfd.readouterr().err
    assert main(["serve", small, "--host", ""]) == 1
    assert "--host must be an address or a name, got ''" in capfd.readouterr().err
    assert main(["serve", "nowhere.npz"]) == 1
    assert "nowhere.npz" in capfd.readouterr().err


@no_kernels
def test_packages_that_are_missing(monkeypatch, capfd):
    from npmobilenet.cli import main

    for name in [name for name in sys.modules if name.startswith("npmobilenet.serving.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve"]) == 1
    assert 'a server needs uvicorn: pip install "npmobilenet[serve]"' in capfd.readouterr().err


@compiled_only
def test_on_ray_serve(monkeypatch):
    """The example, on Ray: two replicas, each on the CPU that it was given."""
    ray = pytest.importorskip("ray", reason="ray is not installed")
    serve = pytest.importorskip("ray.serve", reason="ray[serve] is not installed")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    content = photo("coffee.png").read_bytes()
    expected = [one._asdict() for one in npmobilenet.load("mobilenet_v2").classify(content)]
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    ray.init(num_cpus=3, include_dashboard=False, log_to_driver=False)
    try:
        serve.start(http_options={"host": "127.0.0.1", "port": port})
        serve.run(runpy.run_path(str(EXAMPLES / "on_ray_serve.py"))["app"])

        def ask(path):
            connection = HTTPConnection("127.0.0.1", port, timeout=180)
            connection.request("POST", path, content)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

        def replicas():
            (deployment,) = serve.status().applications["default"].deployments.values()
            return deployment.replica_states

        def answers():  # its proxy comes up by itself, and at first knows of no application
            with suppress(OSError, HTTPException, ValueError):
                return ask("/classify")[0] == 200

        until(lambda: replicas() == {"RUNNING": 2}, 180)
        until(answers, 180)
        with ThreadPoolExecutor(8) as pool:
            assert all(
                one == (200, {"image": None, "predictions": expected}) for one in pool.map(ask, ["/classify"] * 24)
            )
        assert ask("/detect")[0] == 404
        assert replicas() == {"RUNNING": 2}
    finally:
        serve.shutdown()
        ray.shutdown()
