"""Processes that run one runtime each (`runtimes`), and wait while others are measured."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from threading import Timer

import numpy as np

import npmobilenet
from npmobilenet.bench import runtimes
from npmobilenet.bench.machine import package_version
from npmobilenet.bench.peers.networks import Network
from npmobilenet.bench.runtimes import RUNTIMES

PATIENCE = 300  # seconds until a process that does not answer is given up


class PeerError(Exception):
    """A runtime is missing, fails, or computes something else."""


def cpus_for(threads: int) -> list[int]:
    """Return CPUs for so many threads, no two of one core while there are cores; none where it cannot be chosen."""
    if not hasattr(os, "sched_getaffinity"):
        return []
    allowed = sorted(os.sched_getaffinity(0))

    def sibling(cpu: int) -> int:
        """How many CPUs of the same core stand before this one."""
        try:
            path = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")
            others = path.read_text().strip().replace("-", ",").split(",")
        except OSError:
            return 0
        return sum(int(other) < cpu for other in others)

    return sorted(allowed, key=sibling)[:threads]


class Worker:
    """A process with a network, which it has run once when this object is there.

    Attributes
    ----------
    startup : float
        Seconds from the process's start to the first result.
    memory : int or None
        The most bytes it has had until then.
    result : array
        The first result.

    Raises
    ------
    PeerError
        If there is none; the message has one line.
    """

    def __init__(
        self,
        runtime: str,
        network: Network,
        batch: int,
        threads: int,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        about = RUNTIMES[runtime]
        if package_version(about.package) is None:
            raise PeerError(f"not installed ({about.package})")
        suffix = about.int8 if network.dtype == "int8" else about.suffix
        if not suffix:
            raise PeerError("no network of 8 bits is made for it here")
        try:
            file, source = network.file(suffix, batch), network.input(batch)
        except Exception as error:
            raise PeerError(f"cannot be exported to {suffix}: {runtimes.one_line(error)}") from error
        output = network.folder / "output.npy"
        task = {
            "runtime": runtime,
            "file": str(file),
            "input": str(source),
            "output": str(output),
            "threads": threads,
            "cpus": cpus_for(threads),
        }
        search = [str(Path(npmobilenet.__file__).parents[1]), os.environ.get("PYTHONPATH")]
        path = {"PYTHONPATH": os.pathsep.join(filter(None, search))}
        # Installed packages have their bytecode beside them; a checkout's is kept as well, whatever the setting.
        path["PYTHONDONTWRITEBYTECODE"] = ""
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (close() closes it)
        start = time.perf_counter()
        self._process = subprocess.Popen(
            [sys.executable, runtimes.__file__, json.dumps(task)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env={**os.environ, **path, **(environment or {})},
        )
        try:
            self.memory = self._answer()["memory"]
            self.startup = time.perf_counter() - start
            self._answer()
            self.result = np.load(output)
        except BaseException:
            self.close()
            raise

    def _answer(self) -> dict:
        patience = Timer(PATIENCE, self._process.kill)
        patience.start()
        try:
            line = self._process.stdout.readline()
        finally:
            patience.cancel()
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "error" in answer:
            raise PeerError(answer["error"])
        return answer

    def _last_words(self) -> str:
        self._process.wait(PATIENCE)
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").split("\n")
        last = next((line for line in reversed(lines) if line.strip()), "")
        return f"ended with code {self._process.returncode}: {last[:300]}".rstrip(": ")

    def burst(self, seconds: float) -> dict:
        """Let it run for so long; returns ``median`` and ``least`` seconds of a call, and the number of ``calls``.

        Its threads sleep before this returns.
        """
        try:
            print(seconds, file=self._process.stdin, flush=True)
        except OSError:
            raise PeerError(self._last_words()) from None
        return self._answer()

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        for file in (self._process.stdin, self._process.stdout, self._errors):
            with suppress(OSError):  # what was not written before it ended
                file.close()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()
