"""What the test files of the benchmark share."""

import io
import subprocess
import sys
import time
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

from benchmark.__main__ import main

ROOT = Path(__file__).resolve().parent.parent.parent
PATIENCE = (
    120  # seconds that a test waits for what must happen; generous, as the machine may be busy
)


def benchmark(*words: object, **options) -> subprocess.CompletedProcess:
    """Run python -m benchmark to its end: what needs options in a process of its own, all else
    in this one, which has imported everything. Scripts are processes anyway."""
    words = [str(word) for word in words]
    if options:
        return subprocess.run(
            [sys.executable, "-m", "benchmark", *words],
            cwd=ROOT, capture_output=True, text=True, timeout=2 * PATIENCE, **options,
        )  # fmt: skip
    with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as errors:
        status = main(words)
    return subprocess.CompletedProcess(words, status, output.getvalue(), errors.getvalue())


def is_alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def wait_until(condition) -> None:
    """Return once the condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)
