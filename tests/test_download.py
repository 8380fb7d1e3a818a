"""Downloads: whole and right under their name or not there at all, against a server on this machine."""

import errno
import hashlib
import http.server
import io
import random
import sys
import threading

import pytest

from npmobilenet import download as module
from npmobilenet.download import download
from npmobilenet.errors import DownloadError
from tests.conftest import no_kernels

pytestmark = no_kernels

CONTENT = random.Random(0).randbytes(300_001)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PREFIX = SHA256[:8]


class Server(http.server.ThreadingHTTPServer):
    """Serves ``content`` under every path, as wrongly as its attributes say."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.content = CONTENT
        self.ranges = True  # honour Range
        self.stop_after = None  # close the connection after so many bytes of a body
        self.length = True  # announce Content-Length
        self.status = None  # answer with this error
        self.location = None  # redirect there
        self.range_header = None  # lie in Content-Range
        self.requests = []  # the Range of every request

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_address[1]}/weights-{PREFIX}.pth"

    def handle_error(self, request, client_address):
        pass  # a client that hangs up is no news


class Handler(http.server.BaseHTTPRequestHandler):
    timeout = 10

    def do_GET(self):
        server = self.server
        server.requests.append(self.headers.get("Range"))
        if server.location and not self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", server.location)
            self.end_headers()
            return
        if server.status:
            self.send_error(server.status)
            return
        begin = 0
        if server.ranges and "Range" in self.headers:
            begin = int(self.headers["Range"].removeprefix("bytes=").removesuffix("-"))
            if begin >= len(server.content):
                self.send_error(416)
                return
            self.send_response(206)
            total = len(server.content)
            self.send_header("Content-Range", server.range_header or f"bytes {begin}-{total - 1}/{total}")
        else:
            self.send_response(200)
        body = server.content[begin:]
        if server.length:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: server.stop_after])

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield running
        running.shutdown()
        thread.join()


@pytest.fixture
def destination(tmp_path):
    return tmp_path / "cache" / f"weights-{PREFIX}.pth"


def part_of(destination):
    return destination.with_name(destination.name + ".part")


def fetch(server, destination, **options):
    return download(server.url, destination, **{"sha256_prefix": PREFIX, "timeout": 10} | options)


def put_part(destination, content):
    destination.parent.mkdir()
    part_of(destination).write_bytes(content)


def assert_installed(destination):
    assert destination.read_bytes() == CONTENT
    assert [file.name for file in destination.parent.iterdir()] == [destination.name]


def failure(server, destination, **options):
    """Return the text of the error; nothing may stand under the final name."""
    with pytest.raises(DownloadError) as caught:
        fetch(server, destination, **options)
    text = str(caught.value)
    assert "\n" not in text and server.url in text
    assert f"download the file by hand and save it as {destination}" in text
    assert not destination.is_file()
    return text


@pytest.mark.parametrize("options", [{}, {"size": len(CONTENT)}, {"sha256_prefix": SHA256}, {"progress": False}])
@pytest.mark.parametrize("length", [True, False])
def test_complete(server, destination, options, length):
    server.length = length
    assert fetch(server, destination, **options) == destination
    assert_installed(destination)
    assert server.requests == [None]


def test_a_good_file_needs_no_network(server, destination):
    destination.parent.mkdir()
    destination.write_bytes(CONTENT)
    assert fetch(server, str(destination)) == destination
    assert server.requests == []


@pytest.mark.parametrize("content", [b"", b"something else", CONTENT[:-1] + b"?"])
def test_a_wrong_file_is_replaced(server, destination, content):
    destination.parent.mkdir()
    destination.write_bytes(content)
    fetch(server, destination)
    assert_installed(destination)


def test_a_wrong_file_does_not_stay_when_the_download_fails(server, destination):
    destination.parent.mkdir()
    destination.write_bytes(b"something else")
    server.status = 404
    failure(server, destination)
    assert list(destination.parent.iterdir()) == []


@pytest.mark.parametrize("size", [None, len(CONTENT)])
def test_a_truncated_transfer_is_resumed(server, destination, size):
    server.stop_after = 100_000
    text = failure(server, destination, size=size)
    assert f"broke off after 100000 of {len(CONTENT)} bytes" in text
    assert "Run the same command again to resume" in text and str(part_of(destination)) in text
    assert part_of(destination).read_bytes() == CONTENT[:100_000]
    server.stop_after = None
    fetch(server, destination, size=size)
    assert_installed(destination)
    assert server.requests == [None, "bytes=100000-"]


def test_a_transfer_can_break_off_again_and_again(server, destination):
    server.stop_after = 100_000
    for received in (100_000, 200_000, 300_000):
        assert f"broke off after {received} of" in failure(server, destination)
    fetch(server, destination)
    assert_installed(destination)


def test_a_transfer_of_unannounced_length_is_resumed_where_the_size_is_known(server, destination):
    server.stop_after, server.length = 100_000, False
    assert "broke off after 100000 of" in failure(server, destination, size=len(CONTENT))
    server.stop_after = None
    fetch(server, destination, size=len(CONTENT))
    assert_installed(destination)


@pytest.mark.parametrize("length", [1000, len(CONTENT) + 1000])
def test_a_server_without_ranges_starts_over(server, destination, length):
    put_part(destination, b"x" * length)
    server.ranges = False
    fetch(server, destination)
    assert_installed(destination)
    assert server.requests == [f"bytes={length}-"]


def test_a_finished_part_needs_no_network(server, destination):
    put_part(destination, CONTENT)
    fetch(server, destination)
    assert_installed(destination)
    assert server.requests == []


@pytest.mark.parametrize("extra", [0, 7])
def test_a_part_that_is_too_long_starts_over(server, destination, extra):
    put_part(destination, b"x" * (len(CONTENT) + extra))
    fetch(server, destination)
    assert_installed(destination)
    assert server.requests == [f"bytes={len(CONTENT) + extra}-", None]  # the first is answered with 416


def test_a_part_of_another_version_starts_over(server, destination):
    put_part(destination, b"x" * 1000)
    fetch(server, destination)
    assert_installed(destination)
    assert server.requests == ["bytes=1000-", None]


@pytest.mark.parametrize("begin", ["bytes 5-9/10", "nonsense"])
def test_a_server_that_sends_another_range_is_not_believed(server, destination, begin):
    put_part(destination, CONTENT[:1000])
    server.range_header = begin
    assert "asked for the bytes from 1000 on and sent others" in failure(server, destination)


@pytest.mark.parametrize("content", [CONTENT[:-1] + b"?", b"<html>Please log in</html>"])
def test_a_corrupt_transfer_is_removed(server, destination, content):
    server.content = content
    text = failure(server, destination)
    found = hashlib.sha256(content).hexdigest()[:8]
    assert "not the expected file and has been removed" in text
    assert f"({len(content)} bytes with sha256 {found}, expected {PREFIX})" in text
    assert list(destination.parent.iterdir()) == []


def test_a_wrong_hash_is_not_resumed_forever(server, destination):
    put_part(destination, CONTENT[:1000])
    assert "not the expected file" in failure(server, destination, sha256_prefix="0" * 8)
    assert list(destination.parent.iterdir()) == []


def test_another_size_is_refused_before_anything_is_transferred(server, destination):
    text = failure(server, destination, size=17)
    assert f"offers {len(CONTENT)} bytes, not the expected 17" in text
    assert list(destination.parent.iterdir()) == []


@pytest.mark.parametrize("status", [404, 403, 500, 503])
def test_http_errors(server, destination, status):
    server.status = status
    assert f"the server answers {status} " in failure(server, destination)
    assert list(destination.parent.iterdir()) == []


def test_an_http_error_keeps_what_was_there(server, destination):
    put_part(destination, CONTENT[:1000])
    server.status = 503
    failure(server, destination)
    assert part_of(destination).read_bytes() == CONTENT[:1000]


def test_connection_refused(server, destination):
    server.shutdown()
    server.server_close()
    assert "no connection (" in failure(server, destination)
    assert list(destination.parent.iterdir()) == []


def test_unknown_host(monkeypatch, server, destination):
    def no_such_host(*args, **kwargs):
        raise module.urllib.error.URLError(OSError(-2, "Name or service not known"))

    monkeypatch.setattr(module.urllib.request.OpenerDirector, "open", no_such_host)
    assert "no connection (Name or service not known)" in failure(server, destination)


def test_a_silent_server(server, destination, monkeypatch):
    def silent(*args, **kwargs):
        raise TimeoutError("timed out")

    monkeypatch.setattr(module.http.client.HTTPResponse, "read", silent)
    assert "broke off after 0 of" in (text := failure(server, destination)) and "timed out" in text
    assert list(destination.parent.iterdir()) == []  # an empty part is of no use


def test_redirects_are_followed(server, destination):
    server.location = "/moved/file"
    fetch(server, destination)
    assert_installed(destination)


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/file"])
def test_redirects_to_other_schemes_are_refused(server, destination, location):
    server.location = location
    text = failure(server, destination)
    assert location in text and ("refused" in text or "not allowed" in text)  # urllib itself refuses some


def test_https_is_not_left():
    request = module.urllib.request.Request("https://example.org/file")
    with pytest.raises(module.urllib.error.HTTPError, match="refused"):
        module._Redirects().redirect_request(request, io.BytesIO(), 302, "", {}, "http://example.org/file")
    followed = module._Redirects().redirect_request(request, io.BytesIO(), 302, "", {}, "https://example.org/b")
    assert followed.full_url == "https://example.org/b"


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://host/file", "weights.pth", ""])
def test_other_schemes_are_refused(tmp_path, url):
    with pytest.raises(DownloadError, match="only http and https"):
        download(url, tmp_path / "file", sha256_prefix=PREFIX)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["http://", "http://[", "http://127.0.0.1:nonsense/", "http://a b/"])
def test_impossible_urls(tmp_path, url):
    with pytest.raises(DownloadError, match="no connection"):
        download(url, tmp_path / "file", sha256_prefix=PREFIX)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("prefix", ["", "b035310", "B0353104", "g" * 8, "0" * 65])
def test_impossible_hashes(tmp_path, prefix):
    with pytest.raises(ValueError, match="8 to 64 hexadecimal digits"):
        download("http://127.0.0.1/", tmp_path / "file", sha256_prefix=prefix)


def test_a_folder_that_cannot_be_made(server, tmp_path):
    (tmp_path / "cache").write_bytes(b"a file, not a folder")
    text = failure(server, tmp_path / "cache" / "file")
    assert "cannot write" in text and "Check permissions and free space" in text
    assert server.requests == []


def test_a_folder_of_the_same_name(server, destination):
    destination.mkdir(parents=True)
    assert "cannot write" in failure(server, destination)
    assert list(destination.parent.iterdir()) == [destination]


def test_a_full_disk_does_not_stay_full(server, destination, monkeypatch):
    class FullDisk(io.BufferedRandom):
        def write(self, block):
            raise OSError(errno.ENOSPC, "No space left on device")

    def fdopen(descriptor, mode):
        return FullDisk(io.FileIO(descriptor, "r+"))

    monkeypatch.setattr(module.os, "fdopen", fdopen)
    assert "No space left on device" in failure(server, destination)
    assert list(destination.parent.iterdir()) == []


@pytest.mark.skipif(module.fcntl is None, reason="no file locks here")
def test_downloads_at_once_fetch_the_file_once(server, destination):
    threads = [threading.Thread(target=fetch, args=(server, destination)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert_installed(destination)
    assert server.requests == [None]


@pytest.mark.skipif(module.fcntl is None, reason="no file locks here")
def test_after_a_failure_the_next_in_line_tries(server, destination):
    """The one who waited holds a lock on a file that has been removed: it must notice and open a new one."""
    server.content = b"wrong"
    errors = []

    def attempt():
        try:
            fetch(server, destination)
        except DownloadError as error:
            errors.append(str(error))

    threads = [threading.Thread(target=attempt) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    assert len(errors) == 4 and all("not the expected file" in error for error in errors)
    assert list(destination.parent.iterdir()) == []


def test_without_file_locks(server, destination, monkeypatch):
    monkeypatch.setattr(module, "fcntl", None)
    server.stop_after = 1000
    failure(server, destination)
    server.stop_after = None
    fetch(server, destination)
    assert_installed(destination)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_progress_without_tqdm(server, destination, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    fetch(server, destination)
    steps = sys.stderr.getvalue().split("\r")
    assert steps[-1] == f"{destination.name}: 100 %\n"
    assert 3 <= len(steps) <= 12


def test_progress_of_unannounced_length(server, destination, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm", None)
    monkeypatch.setattr(sys, "stderr", Terminal())
    server.length = False
    fetch(server, destination)
    assert sys.stderr.getvalue() == f"\r{destination.name}: 0 MB\n"


def test_progress_with_tqdm(server, destination, monkeypatch):
    pytest.importorskip("tqdm")
    monkeypatch.setattr(sys, "stderr", Terminal())
    fetch(server, destination)
    assert destination.name in sys.stderr.getvalue() and "100%" in sys.stderr.getvalue()


@pytest.mark.parametrize("stream", [io.StringIO, Terminal, lambda: None])
def test_silence(server, destination, monkeypatch, stream):
    """No progress where it is not wanted, and none where nobody sees it."""
    stderr = stream()
    monkeypatch.setattr(sys, "stderr", stderr)
    fetch(server, destination, progress=not isinstance(stderr, Terminal))
    assert stderr is None or stderr.getvalue() == ""
    assert_installed(destination)
