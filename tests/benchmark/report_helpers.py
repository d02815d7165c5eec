"""What the tests of reports share."""

import csv
from pathlib import Path

import numpy as np
from fake_runs import write_job, write_task_run


def lines_of(spec: dict) -> dict[str, np.ndarray]:
    """x, y, low and high by algorithm, (4, points) each."""
    found = {}
    for row in spec["data"]["values"]:
        values = [row[name] for name in ("x", "y", "low", "high")]
        found.setdefault(row["algorithm"], []).append(values)
    return {name: np.array(several, float).T for name, several in found.items()}


def rows(path: Path) -> list[dict]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def section(text: str, heading: str) -> str:
    """What stands under a heading of report.md."""
    return text.partition(f"## {heading}")[2].partition("\n## ")[0]


def write_task_job(
    root: Path, algorithm: str, seed: int, exact: float = 0.9, kl: float = 0.5, **run
) -> Path:
    """A job on the task "sums", of a script that knows its exact success."""
    further = {"exact_success": exact, "kl": kl, "base_exact_success": 0.42, "note": "x"}
    options = {"score_range": (0.4, 1.0), "threshold": 0.95, "further": further}
    return write_job(root, algorithm, "sums", seed, write=write_task_run, **options | run)
