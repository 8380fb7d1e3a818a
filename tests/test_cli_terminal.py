"""The command line when something goes wrong around it: streams, signals, errors of every kind."""

import errno
import json
import os
import signal
import subprocess
import sys
import time
import warnings

import pytest

from npmobilenet.cli import main, terminal, warmup
from npmobilenet.errors import AssumptionWarning
from npmobilenet.text import to_json
from tests.conftest import no_kernels

pytestmark = no_kernels

posix_only = pytest.mark.skipif(os.name != "posix", reason="needs a POSIX shell and signals")
PYTHON = [sys.executable, "-c"]


@posix_only
@pytest.mark.parametrize(
    ("arguments", "redirection", "code", "error"),
    [
        ("inspect mobilenet_v2", ">&-", 1, "npmobilenet: standard output is closed\n"),
        ("inspect mobilenet_v2 --json", ">&-", 1, "npmobilenet: standard output is closed\n"),
        ("--help", ">&-", 1, "npmobilenet: standard output is closed\n"),
        ("weights download nothing", ">&- <&-", 1, "npmobilenet: no weights 'nothing'"),
        ("weights download nothing", "2>&-", 1, ""),
        ("inspect mobilenet_v2", "<&- >&- 2>&-", 1, ""),
        ("nonsense", "2>&-", 2, ""),
    ],
)
def test_closed_streams(arguments, redirection, code, error):
    command = f'"$0" -m npmobilenet {arguments} {redirection}'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith(error) and done.stderr.count("\n") == bool(error)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")  # noqa: PTH110
@pytest.mark.parametrize("arguments", ["inspect mobilenet_v2", "inspect mobilenet_v2 --json", "--help", "--version"])
def test_full_streams(arguments):
    command = f'"$0" -m npmobilenet {arguments} > /dev/full'
    done = subprocess.run(["sh", "-c", command, sys.executable], capture_output=True, text=True)
    full = f"npmobilenet: standard output cannot be written: {os.strerror(errno.ENOSPC)}\n"
    assert (done.returncode, done.stderr) == (1, full)
    command = '"$0" -m npmobilenet weights download nothing 2> /dev/full'
    assert subprocess.run(["sh", "-c", command, sys.executable]).returncode == 1


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("a wrong\x1b[2J value"), "a wrong\\x1b[2J value"),
        (ValueError("several:\nnpmobilenet: lines"), "several:\n  npmobilenet: lines"),
        (MemoryError(), "out of memory"),
        (MemoryError("Unable to allocate 3 TiB"), "out of memory: Unable to allocate 3 TiB"),
        (OSError(errno.ENOSPC, "No space left on device"), "No space left on device"),
        (PermissionError(errno.EACCES, "Permission denied", "a\nb"), "a\\nb: Permission denied"),
        (RecursionError("maximum recursion depth exceeded"), "unexpected RecursionError: maximum recursion depth"),
        (ZeroDivisionError(), "unexpected ZeroDivisionError (a mistake of this program; PYTHONDEVMODE=1 shows where)"),
    ],
)
def test_every_error_is_reported_and_none_shows_a_traceback(error, line, monkeypatch, capsys):
    def fail(options):
        raise error

    monkeypatch.setattr(warmup, "run", fail)
    assert main(["warmup"]) == 1
    output = capsys.readouterr().err
    assert output.startswith(f"npmobilenet: {line}") and "Traceback" not in output


def test_a_long_line_lacks_its_middle(capsys):
    terminal.warn("a" * 50_000 + ": the reason")
    output = capsys.readouterr().err
    assert output.startswith("npmobilenet: aaa") and output.endswith("aaa: the reason\n") and len(output) < 1100


@pytest.mark.skipif(sys.flags.dev_mode, reason="shows tracebacks")
def test_development_mode_shows_where():
    code = "import npmobilenet.cli as c, npmobilenet.cli.warmup as w; del w.time; c.main(['warmup'])"
    for option, shown in (([], False), (["-X", "dev"], True)):
        done = subprocess.run([sys.executable, *option, "-c", code], capture_output=True, text=True)
        assert ("Traceback" in done.stderr) == shown
        assert "npmobilenet: unexpected NameError" in done.stderr


def test_an_interrupt_where_nothing_can_be_raised_is_not_lost(capsys):
    class Finalized:
        def __del__(self):
            raise KeyboardInterrupt

    def command():
        Finalized()
        time.sleep(1)
        return 0

    assert terminal.run(command) == 130
    assert capsys.readouterr().err == "npmobilenet: interrupted\n"


def test_warnings_are_lines(capsys):
    def command():
        warnings.warn("something\nis assumed", AssumptionWarning, stacklevel=1)
        warnings.warn("something is odd", UserWarning, stacklevel=1)
        warnings.warn_explicit("of which file?", UserWarning, "tiff.py", 1, module="PIL.TiffImagePlugin")
        return 0

    assert terminal.run(command) == 0
    lines = ["npmobilenet: note: something is assumed", "npmobilenet: warning: something is odd"]
    assert capsys.readouterr().err.splitlines() == lines


INTERRUPTED_WRITING = """
import sys, time
from pathlib import Path
from npmobilenet.cli import terminal
from npmobilenet.files import replacing

def command():
    with replacing(Path(sys.argv[1])) as file:
        file.write(b"half")
        print("ready", flush=True)
        time.sleep(60)

sys.exit(terminal.run(command))
"""


@posix_only
@pytest.mark.parametrize(
    ("number", "code", "line"), [(signal.SIGINT, 130, "npmobilenet: interrupted\n"), (signal.SIGTERM, -15, "")]
)
def test_signals_leave_no_half_written_file(number, code, line, tmp_path):
    command = [*PYTHON, INTERRUPTED_WRITING, tmp_path / "f.npz"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        assert list(tmp_path.iterdir())
        process.send_signal(number)
        _, error = process.communicate(timeout=30)
    assert (process.returncode, error) == (code, line)
    assert not list(tmp_path.iterdir())


@posix_only
def test_an_interrupt_ends_classify_at_once(pets, thumbnails):
    """Also while a thread waits for standard input; whether the command is still starting does not matter."""
    arguments = ["classify", str(thumbnails / "coffee.png"), "-", "--json", "--model", pets, "--backend", "reference"]
    command = [sys.executable, "-m", "npmobilenet", *arguments]
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(command, **streams) as process:
        time.sleep(1.5)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) in (130, -signal.SIGINT)  # the latter if it comes while a class is being made
        assert process.stderr.read() == b"npmobilenet: interrupted\n"


def test_json_has_no_numbers_that_json_has_not():
    text = to_json({"a": [float("nan"), float("inf"), 1.5], "name": "caf\udce9 é", "n": (1, None)})
    assert text.isascii()
    strict = json.loads(text, parse_constant=lambda name: pytest.fail(name))
    assert strict == {"a": [None, None, 1.5], "name": "caf\udce9 é", "n": [1, None]}
