"""Drives wrk (https://github.com/wg/wrk), pinned to one core."""

from __future__ import annotations

import os
import re
import resource
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from servers.running import CannotRun

PIPELINE = """
init = function(args)
  local requests = {}
  for i = 1, %d do requests[i] = wrk.format("GET") end
  all = table.concat(requests)
end
request = function() return all end
"""
_UNITS = {"us": 1.0, "ms": 1e3, "s": 1e6, "m": 60e6}


@dataclass(frozen=True, slots=True)
class LoadResult:
    """What wrk counted.

    Attributes:
        requests: in all.
        rate: requests per second.
        p50_us: median latency; of a whole batch, where requests are pipelined.
        errors: connections that failed, time-outs, replies other than 2xx and 3xx.
        seconds: how long wrk says that it took.
        cpu_seconds: of wrk.
    """

    requests: int
    rate: float
    p50_us: float
    errors: int
    seconds: float
    cpu_seconds: float


def require_wrk() -> None:
    """Exit with a word where wrk is missing."""
    if shutil.which("wrk") is None:
        sys.exit("wrk is missing: install it (Debian: apt-get install wrk)")


def run_wrk(port: int, *, connections: int, depth: int, seconds: int, core: int, path: str = "/") -> LoadResult:
    """Load a server on this port.

    Args:
        port: of 127.0.0.1.
        connections: kept alive all the time.
        depth: requests in flight on each.
        seconds: wrk knows whole ones only.
        core: where wrk runs.
        path: of the requests.

    Raises:
        CannotRun: wrk failed, or counted no request.
    """
    cpu_before = _children_cpu()
    with tempfile.TemporaryDirectory(prefix="asyncmg-bench-") as folder:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--latency"]
        if depth > 1:
            script = Path(folder, "pipeline.lua")
            script.write_text(PIPELINE % depth)
            command += ["-s", str(script)]
        done = subprocess.run(
            [*command, f"http://127.0.0.1:{port}{path}"],
            capture_output=True,
            text=True,
            timeout=seconds + 30,
            preexec_fn=lambda: os.sched_setaffinity(0, {core}),
        )
    out = done.stdout
    requests = re.search(r"(\d+) requests in", out)
    rate = re.search(r"Requests/sec:\s+([\d.]+)", out)
    p50 = re.search(r"^\s+50%\s+([\d.]+)(us|ms|s|m)\s*$", out, re.MULTILINE)
    if not (requests and rate and p50) or requests[1] == "0":
        raise CannotRun(f"wrk got no reply: {done.stderr.strip() or out.strip()}")
    errors = sum(int(n) for n in re.findall(r"(?:connect|read|write|timeout) (\d+)", out))
    errors += sum(int(n) for n in re.findall(r"Non-2xx or 3xx responses: (\d+)", out))
    return LoadResult(
        requests=int(requests[1]),
        rate=float(rate[1]),
        p50_us=float(p50[1]) * _UNITS[p50[2]],
        errors=errors,
        seconds=int(requests[1]) / float(rate[1]),
        cpu_seconds=_children_cpu() - cpu_before,
    )


def _children_cpu() -> float:
    """Return the CPU time of children that were waited for: between the two calls, only wrk is."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime
