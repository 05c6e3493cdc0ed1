"""Measures a stretch of the process that it runs in; the programs of the bench print what it found."""

import json
import re
import resource
import time
from pathlib import Path


class Meter:
    """Wall time, CPU time of this process, and its peak memory, from `start` to `stop`."""

    def start(self) -> None:
        self._cpu = _cpu_seconds()
        self.started_at = time.time()

    def stop(self, *, at: float | None = None) -> dict[str, float]:
        """Ends the stretch, now or at an earlier Unix time. Seconds, and MB of 10^6 bytes."""
        return {
            "seconds": (at or time.time()) - self.started_at,
            "cpu_seconds": _cpu_seconds() - self._cpu,
            "peak_mb": peak_mb(),
        }


def peak_mb(pid: int | str = "self") -> float:
    """The most memory that a process has had in RAM, in MB of 10^6 bytes.

    Not getrusage's ru_maxrss, in which Linux counts the memory of the process that it was started from.
    """
    (kilobytes,) = re.findall(r"^VmHWM:\s+(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(kilobytes) * 1024 / 1e6


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def report(values: dict[str, float]) -> None:
    """Prints the one line that `Bench.run_program` reads."""
    print(json.dumps(values), flush=True)
