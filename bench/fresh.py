"""Fresh processes measured from outside, in turns: how long each takes, and how much memory.

This file is run as a script, with a JSON object as its argument, and imports little: on Linux the most memory that a
process had counts what its parent had when it was started.
"""

import json
import os
import subprocess
import sys
import time


def measure(commands: dict[str, list[str]], rounds: int) -> dict[str, dict[str, list[float]]]:
    """Run every command as often; seconds until it has ended, bytes at most, and what it printed last."""
    found = {name: {"seconds": [], "bytes": [], "printed": ""} for name in commands}
    for _ in range(rounds + 1):
        for name, command in commands.items():
            start = time.perf_counter()
            process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            printed = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            seconds = time.perf_counter() - start
            if status:
                raise SystemExit(f"{name}: ended with {os.waitstatus_to_exitcode(status)}")
            found[name]["seconds"].append(seconds)
            found[name]["bytes"].append(used.ru_maxrss * (1 if sys.platform == "darwin" else 1024))
            found[name]["printed"] = printed.strip()
    for each in found.values():  # the first round has read files into the system's cache
        del each["seconds"][0], each["bytes"][0]
    return found


if __name__ == "__main__":
    print(json.dumps(measure(**json.loads(sys.argv[1]))))
