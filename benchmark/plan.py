"""How long runs will take, by the seconds of those that stored reports hold."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .files import read_csv
from .grid import Job
from .words import number

RESULTS = Path(__file__).parent / "results"
START = {"env-id": 4, "task": 25}  # seconds that wall_seconds leave out: imports, evaluation,
# the base model of a language model's script


class Seconds:
    """What a step of a stored run took, by suite, algorithm and environment, or else by what
    knows less of the run."""

    def __init__(self, folder: Path):
        found: dict[tuple, list[float]] = {}
        for path in sorted(folder.glob("*/results.csv")):
            for row in read_csv(path):
                if row["status"] == "done":
                    step = float(row["wall_seconds"]) / max(float(row["global_step"]), 1)
                    for key in self.keys(
                        path.parent.name, row["algorithm"], row["script"], row["env_id"]
                    ):
                        found.setdefault(key, []).append(step)
        self.found = {key: float(np.median(steps)) for key, steps in found.items()}

    @staticmethod
    def keys(suite: str, algorithm: str, script: str, env_id: str) -> list[tuple]:
        """What the seconds of a step are looked up by, the best first."""
        return [(suite, algorithm, env_id), (algorithm, env_id), (script, env_id), (script,)]

    def of(self, job: Job, suite: str) -> float | None:
        """How long the job keeps its processes busy, in CPU seconds; None where nothing stored
        is like it."""
        keys = self.keys(suite, job.algorithm, job.script.name, job.env_id)
        step = next((self.found[key] for key in keys if key in self.found), None)
        if step is None:
            return None
        return job.processes() * (
            START[job.environment_flag] + step * job.flags["total_timesteps"]
        )


@dataclass
class Part:
    """One suite of a suite of suites."""

    name: str
    jobs: list[Job]
    left: list[Job]
    seconds: float  # that these will take
    unknown: int  # of these, those of which nothing is known


def part(name: str, jobs: list[Job], left: list[Job], known: Seconds) -> Part:
    """A suite, with what is left of it to make and how long that will take."""
    found = [known.of(job, Path(name).stem) for job in left]
    seconds = sum(x for x in found if x is not None)
    return Part(name, jobs, left, seconds, found.count(None))


def table(parts: list[Part], workers: int) -> list[str]:
    """Lines on what is left of each suite and of all, and how long it will take."""
    rows = [("suite", "runs", "left", "CPU minutes", "hours")]
    rows += [line(Path(x.name).stem, [x], workers) for x in parts]
    rows.append(line("all", parts, workers))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for first, *others in rows:
        cells = [x.rjust(width) for x, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    what = f"by the seconds of runs in {RESULTS.name}, whose machines may differ from this one"
    lines.append(f"hours with {workers} workers; {what}")
    if unknown := sum(x.unknown for x in parts):
        lines.append(f"{unknown} runs are in none of these, and are not counted")
    return lines


def line(name: str, parts: list[Part], workers: int) -> tuple[str, ...]:
    """A line of the table: some suites together."""
    seconds = sum(x.seconds for x in parts)
    counts = (sum(len(x.jobs) for x in parts), sum(len(x.left) for x in parts))
    return name, *map(str, counts), number(seconds / 60, 0), number(seconds / 3600 / workers)
