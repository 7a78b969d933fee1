"""Taking times in turn, and showing them."""

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table

from memfeat.storage import write_json

Rows = Mapping[str, tuple[str, int]]


@dataclass
class Timings:
    """Each figure's values, one a round."""

    rounds: dict[str, list[float]] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        for name, value in values.items():
            self.rounds.setdefault(name, []).append(value)

    def median(self, name: str) -> float:
        return median(self.rounds[name])

    def spread(self, name: str) -> dict[str, float]:
        values = self.rounds[name]
        return {"min": min(values), "median": median(values), "max": max(values)}

    def report(
        self, output: Path, rows: Rows, title: str, what: str, facts: dict[str, Any], **more: Any
    ) -> None:
        """Print those of the rows that were measured, ratios in bold; write all medians as JSON."""
        caption = (
            f"{what}\n{facts['cpu']}, {facts['cores']} cores, load {facts['load']} at the start; "
            f"torch {facts['torch']}, {facts['date']}"
        )
        table = Table(title=title, caption=caption)
        table.add_column("figure")
        for column in ("min", "median", "max"):
            table.add_column(column, justify="right")
        spread = {name: self.spread(name) for name in self.rounds}
        for name, (label, digits) in rows.items():
            if name in spread:
                values = [f"{value:,.{digits}f}" for value in spread[name].values()]
                table.add_row(label, *values, style="bold" if "ratio" in name else None)
        Console(width=100).print(table)
        medians = {name: self.median(name) for name in self.rounds}
        result = medians | more | {"machine": facts, "spread": spread, "rounds": self.rounds}
        write_json(output, result)
        click.echo(f"Wrote {output}")


def timed(work: Callable[[], object]) -> float:
    """Return the seconds `work` takes; its result is freed once they are taken."""
    start = time.perf_counter()
    result = work()
    seconds = time.perf_counter() - start
    del result
    return seconds


def in_turn(number: int, sides: Mapping[str, Callable[[], object]]) -> dict[str, float]:
    """Time every side, each round beginning with another one."""
    names = list(sides)
    start = number % len(names)
    seconds = {name: timed(sides[name]) for name in names[start:] + names[:start]}
    return {name: seconds[name] for name in names}


def peak_memory(command: Sequence[str]) -> int:
    """Run a command; return the most memory in bytes that it and its children had at once.

    What several share is counted once (Linux's proportional set size).
    """
    peak = 0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, sum(map(_proportional, family(process.pid))))
            time.sleep(0.1)
        if process.returncode:
            raise RuntimeError(f"{' '.join(command)} ended with {process.returncode}")
    return peak


def family(pid: int) -> Iterator[int]:
    """Yield a process and all below it."""
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:
            continue
        for child in children:
            yield from family(int(child))


def _proportional(pid: int) -> int:
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


def machine() -> dict[str, Any]:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "date": datetime.now(UTC).date().isoformat(),
    }
