"""How many photographs a second a server answers, beside what the same threads do without HTTP.

``python -m npmobilenet.bench.serve PHOTOGRAPH... [--model M --clients 64 --seconds 60]`` starts ``npmobilenet serve``
in a process of its own, sends it these photographs from so many clients at once, each the next one as soon as it has
its answer, and states throughput, percentiles and errors. Before it and after it a process like the server's decodes
and classifies the same files: by the same threads, with as many under way, and nothing between.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections import Counter
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

ALONE = """
import itertools, json, sys, time
import npmobilenet
from npmobilenet.pipelines import Classify
from npmobilenet.workers import Workers
model, seconds, *names = json.loads(sys.argv[1])
contents = [open(name, "rb").read() for name in names]
model = npmobilenet.load(model)
pipeline, workers = Classify(model), Workers(model.threads)
seen = enumerate(workers.map(pipeline, itertools.cycle(contents)), 1)
for _ in range(64):
    next(seen)
begun = time.monotonic()
while time.monotonic() - begun < seconds:
    done, _ = next(seen)
print((done - 64) / (time.monotonic() - begun))
"""


def alone(model, photographs, seconds):
    """Photographs a second without a server: decoded and classified by a server's threads, with 64 under way."""
    arguments = json.dumps([model, seconds, *map(str, photographs)])
    return float(subprocess.run([sys.executable, "-c", ALONE, arguments], check=True, capture_output=True).stdout)


class Server:
    """``npmobilenet serve`` on a free port; ends by SIGTERM."""

    def __init__(self, model, *options):
        command = [sys.executable, "-m", "npmobilenet", "serve", model, "--port", "0", *options]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        line = self.process.stdout.readline().split()
        if not line:
            raise RuntimeError(f"no server: it ended with {self.process.wait()}")
        self.host, self.port = urlsplit(line[1]).hostname, urlsplit(line[1]).port
        return self

    def __exit__(self, *_):
        self.process.terminate()
        if self.process.wait(60) != 0:
            raise RuntimeError(f"the server ended with {self.process.returncode}")
        self.process.stdout.close()


async def ask(reader, writer, path, body):
    """One request on a connection that stays: its status and the body of the answer."""
    writer.write(b"POST %s HTTP/1.1\r\nHost: bench\r\nContent-Length: %d\r\n\r\n" % (path.encode(), len(body)) + body)
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    return int(head.split(None, 2)[1]), await reader.readexactly(length)


async def load(server, photographs, clients, seconds, path="/classify"):
    """Ask without a pause; return each answer's seconds, how often each status came, and how many a second."""
    bodies, turn, statuses, took = [Path(one).read_bytes() for one in photographs], count(), Counter(), []
    end = time.monotonic() + seconds

    async def client():
        reader, writer = await asyncio.open_connection(server.host, server.port)
        while time.monotonic() < end:
            begun = time.monotonic()
            try:
                status, _ = await ask(reader, writer, path, bodies[next(turn) % len(bodies)])
            except (OSError, asyncio.IncompleteReadError) as error:
                statuses[type(error).__name__] += 1
                return
            statuses[status] += 1
            took.append(time.monotonic() - begun)
        writer.close()

    begun = time.monotonic()
    await asyncio.gather(*(client() for _ in range(clients)))
    return np.array(took), statuses, len(took) / (time.monotonic() - begun)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("photographs", nargs="+")
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    options = parser.parse_args()
    without = [alone(options.model, options.photographs, options.seconds / 6)]
    with Server(options.model) as server:
        asyncio.run(load(server, options.photographs, 2, 1))
        took, statuses, rate = asyncio.run(load(server, options.photographs, options.clients, options.seconds))
    without.append(alone(options.model, options.photographs, options.seconds / 6))
    p50, p99, longest = 1000 * np.percentile(took, [50, 99, 100])
    answers = ", ".join(f"{status}: {number}" for status, number in sorted(statuses.items(), key=str))
    print(f"{options.clients} clients, {options.seconds:g} s, {options.model}: answers {answers}")
    print(f"{rate:.1f} photographs/s; ms: median {p50:.0f}, 99 % within {p99:.0f}, all within {longest:.0f}")
    before, after = without
    print(f"without HTTP {before:.1f} and {after:.1f} photographs/s: {rate / np.mean(without):.3f} of it")


if __name__ == "__main__":
    main()
