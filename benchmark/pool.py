"""Brings jobs to their end: each script in a process of its own, restarted, resumed and timed out as need be.

A job's directory is <suite folder>/<env_id>__<algorithm>__<seed> and holds
    job.json       what was asked for and how it went
    log.txt        the command lines and all that the script printed
    run/           the run directory, which only the script writes
    superseded-K/  earlier run directories that could not be gone on with; never read, never deleted
    lock           held by the invocation that runs the job
"""

import fcntl
import hashlib
import importlib.metadata
import json
import os
import platform
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count, takewhile
from math import isfinite
from pathlib import Path

from .grid import BadInput, Job

GRACE = 5.0  # seconds that a script has to end by itself once interrupted
SHOW = 30.0  # seconds between two looks at what runs

# The script dies with the process (on Linux) that started it, even where that one is killed: a lost node or a killed
# invocation must not leave a script behind that writes to a run directory which someone else goes on with.
LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("error: the benchmark ended before the script began")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


# ======================================================================================================================
# Records
# ======================================================================================================================
def read_json(path: Path) -> dict | None:
    """The object in a JSON file; None where there is no such file, it cannot be read, or no object is in it."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: a kill, a full disk or another writer never leaves half a file."""
    temporary = path.with_name(f"{path.name}.{threading.get_native_id()}.tmp")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def save_grid(directory: Path, jobs: list[Job]) -> None:
    """Add the jobs to grid.json: what all invocations asked for, so that a report can name what never began."""
    with (directory / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        grid = read_json(directory / "grid.json") or {}
        grid |= {job.name: {"algorithm": job.algorithm, "env_id": job.env_id, "seed": job.seed} for job in jobs}
        write_atomically(directory / "grid.json", json.dumps(grid, indent=2).encode())


def cpu_model() -> str:
    """The processor's name."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def cpus() -> int:
    """How many CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def gpu_model(visible: str) -> str:
    """The name of the first GPU, of all or in a CUDA_VISIBLE_DEVICES; "" where there is none or nobody knows."""
    words = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    words += ["-i", visible.split(",")[0]] if visible else []
    with suppress(OSError):
        return subprocess.run(words, capture_output=True, text=True).stdout.partition("\n")[0]
    return ""


def installed_version(module: str) -> str | None:
    """The version of `module` as it is installed here, without a local suffix such as +cpu; None if it is not."""
    if module == "python":
        return platform.python_version()
    try:
        return importlib.metadata.version(module).split("+")[0]
    except importlib.metadata.PackageNotFoundError:
        return None


def differences(job: Job) -> list[str]:
    """What the results or the checkpoint there were made with that the job would not have: flags, script, versions."""
    if not any((job.run_dir / name).exists() for name in ("summary.json", "checkpoint.pt")):
        return []
    record, args = read_json(job.directory / "job.json"), read_json(job.run_dir / "args.json")
    now = job.flags | {"environment": job.env_id, "seed": job.seed, "--": shlex.join(job.extra)}
    try:
        then = {"environment": record["env_id"], "seed": record["seed"], "--": shlex.join(record["extra"])}
        then, script = record["flags"] | then, args["script_sha256"]
        versions = {name: str(version).split("+")[0] for name, version in args["versions"].items()}
    except (AttributeError, KeyError, TypeError):
        return ["job.json or args.json is missing or damaged"]
    found = [
        f"flags: {name} {now.get(name)!r} instead of {then.get(name)!r}"
        for name in now | then
        if now.get(name) != then.get(name)
    ]
    if script != hashlib.sha256(job.script.read_bytes()).hexdigest():
        found.append("script")
    here = {name: installed_version(name) for name in versions}
    return found + [f"versions: {k} {here[k]} instead of {versions[k]}" for k in versions if here[k] != versions[k]]


def check_flags(jobs: list[Job]) -> None:
    """Start every script once with each set of flags, where it costs no training: with a run directory that exists,
    which a script refuses by its name once it has accepted all else."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "run").mkdir()
        for job in {(job.script, *job.words()[4:]): job for job in jobs}.values():
            words = [*command(replace(job, directory=Path(name))), "--device", "cpu"]  # another may be on other nodes
            env = os.environ | job.variables()
            result = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=job.folder, env=env
            )
            if result.returncode != 2 or name not in result.stderr:
                why = "".join(ending(result.stderr, 1)).removeprefix("error: ") or f"exit status {result.returncode}"
                raise BadInput(f"{why} ({job.algorithm} on {job.env_id}; nothing was moved or run)")


def has_summary(job: Job) -> bool:
    """Whether the script came to its end: it writes the summary last. One with numbers that are not finite is none."""
    summary = read_json(job.run_dir / "summary.json")
    return summary is not None and all(isfinite(x) for x in summary.values() if isinstance(x, float))


def set_aside(job: Job) -> None:
    """Move a run directory that cannot be gone on with out of the way; it is kept."""
    places = (job.directory / f"superseded-{k}" for k in count(1))
    job.run_dir.rename(next(place for place in places if not place.exists()))


@contextmanager
def locked(directory: Path) -> Iterator[bool]:
    """Hold the folder's lock, which the kernel frees with the process. Yields whether it could be had."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


@contextmanager
def claim(job: Job) -> Iterator[str]:
    """Hold the job's lock. Yields why there is nothing to run, or "".

    "locked": another invocation holds it; "finished": the run is there.
    """
    with locked(job.directory) as mine:
        finished = mine and has_summary(job) and not differences(job)
        if finished:  # its record gets what the suite has now
            record = read_json(job.directory / "job.json")
            now = record | {"score_range": job.score_range, "threshold": job.threshold}
            if now != record:
                save_record(job, now)
        yield "finished" if finished else "" if mine else "locked"


# ======================================================================================================================
# One job
# ======================================================================================================================
def command(job: Job, resume: bool = False) -> list[str]:
    """The command line of the job, from the interpreter on."""
    if resume:
        return [sys.executable, str(job.script), "--resume", str(job.run_dir)]
    return [sys.executable, str(job.script), *job.words(), "--run-dir", str(job.run_dir)]


def run_job(
    job: Job,
    retries: int = 1,
    timeout: float | None = None,
    stall: float | None = None,
    variables: dict[str, str] | None = None,
    stop: threading.Event | None = None,
) -> dict:
    """Run the job's script until it succeeds, has failed 1 + `retries` times, or `stop` is set; return its record.

    A half-finished run is resumed from its checkpoint. Exit status 2 says that the input is bad, so the same command is
    not tried again; where it answers --resume, the checkpoint is no good and the run starts anew. An attempt may take
    `timeout` seconds, and write nothing for `stall`; `variables` join the environment. The caller holds the job's lock.
    """
    visible = (variables or os.environ).get("CUDA_VISIBLE_DEVICES", "")  # the latter as Ray sets it
    on_gpu = any(word.endswith("cuda") for word in job.words())
    machine = {"cpu": cpu_model(), "gpu": gpu_model(visible) if on_gpu else ""}
    record, failures, begun = new_record(job) | machine, 0, time.monotonic()
    try:
        if same := not differences(job):  # the counts go on
            was = read_json(job.directory / "job.json") or {}
            record |= {name: was.get(name, 0) for name in ("attempts", "resumes")}
        resume = same and (job.run_dir / "checkpoint.pt").exists()
        while record["status"] == "running":
            if not resume and job.run_dir.exists():
                set_aside(job)
            record["attempts"] += 1
            record["resumes"] += resume
            save_record(job, record)
            status, reason = attempt(job, command(job, resume), timeout, variables or {}, stop, stall)
            record["seconds"] = round(time.monotonic() - begun, 1)  # of this invocation
            refused = reason == "exit status 2"
            if status != "failed":
                record |= {"status": status, "reason": reason}
            elif refused and resume:
                resume = False
            elif refused or failures == retries:
                record |= {"status": "failed", "reason": reason}
            else:
                failures += 1
                resume = (job.run_dir / "checkpoint.pt").exists()
        save_record(job, record)
    except OSError as error:  # a full disk, for one; the record in memory still says so
        record |= {"status": "failed", "reason": f"the benchmark could not go on: {error.strerror}"}
    return record


def new_record(job: Job) -> dict:
    """What job.json holds of a job that begins."""
    return {
        "algorithm": job.algorithm, "script": job.script.name, "env_id": job.env_id, "seed": job.seed,
        "flags": job.flags, "extra": list(job.extra), "score_range": job.score_range, "threshold": job.threshold,
        "status": "running", "reason": "", "attempts": 0, "resumes": 0,
    }  # fmt: skip


def save_record(job: Job, record: dict) -> None:
    """Write job.json."""
    write_atomically(job.directory / "job.json", json.dumps(record, indent=2).encode())


def last_sign(job: Job) -> int:
    """When the script last wrote to its log or its run directory, as their file system counts."""
    times = []
    for path in (job.directory / "log.txt", *job.run_dir.glob("*")):
        with suppress(FileNotFoundError):  # a temporary file may go at any time
            times.append(path.stat().st_mtime_ns)
    return max(times)


def attempt(
    job: Job,
    words: list[str],
    timeout: float | None,
    variables: dict[str, str],
    stop: threading.Event | None,
    stall: float | None = None,
) -> tuple[str, str]:
    """Run one command to its end. Returns ("done", ""), ("failed", why) or ("interrupted", "")."""
    if stop is not None and stop.is_set():
        return "interrupted", ""
    launched = words
    if sys.platform == "linux":
        launched = [sys.executable, "-c", LAUNCHER, str(os.getpid()), *words[1:]]
    reason, threads = "", {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (job.directory / "log.txt").open("a", encoding="utf-8") as log:
        print("$", shlex.join(words), file=log, flush=True)
        process = subprocess.Popen(
            launched,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            cwd=job.folder,
            env=os.environ | threads | job.variables() | variables,
            start_new_session=True,  # its own process group: all of it can be ended, and no terminal's Ctrl-C hits it
        )
        try:
            begun = looked = time.monotonic()
            sign = last_sign(job)
            while process.poll() is None and not reason:
                now = time.monotonic()
                if stop is not None and stop.is_set():
                    return "interrupted", ""
                if timeout and now - begun > timeout:
                    reason = f"timed out after {timeout:g} s"
                if stall and now - looked > stall:
                    looked, before, sign = now, sign, last_sign(job)
                    reason = reason or f"wrote nothing for {stall:g} s" * (sign == before)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(0.2)
        finally:
            end(process)
    if has_summary(job):
        return "done", ""
    if reason:
        return "failed", reason
    if process.returncode < 0:
        return "failed", f"killed by {signal.Signals(-process.returncode).name}"
    if process.returncode > 0:
        return "failed", f"exit status {process.returncode}"
    return "failed", "exit status 0, but no finite summary.json"


def end(process: subprocess.Popen) -> None:
    """End a script and whatever it started: kindly at first, so that it can close its files."""
    if process.poll() is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ending(output: str, number: int) -> list[str]:
    """The last lines of an output that are not empty; where it ends with a box, what the box says at its top."""
    lines = [line for line in output.splitlines() if line.strip()]
    if not lines or not lines[-1].startswith("╰"):
        return lines[-number:]
    box = [line.strip("│ ") for line in output.rpartition("╭")[2].splitlines()[1:]]
    return [" ".join(takewhile(lambda line: line.strip("─"), box))]


def read_output(job: Job) -> str:
    """What the job's script has printed; "" where there is no log."""
    with suppress(OSError):
        return (job.directory / "log.txt").read_text(encoding="utf-8", errors="replace")
    return ""


def show(jobs: list[Job]) -> None:
    """Print how far each run is: what the script last said of its steps and return."""
    for job in jobs:
        steps = [line for line in read_output(job).splitlines()[-20:] if line.startswith("step ")]
        if steps:
            print(f"  {job.name}: {steps[-1]}", flush=True)


# ======================================================================================================================
# All jobs, on this machine
# ======================================================================================================================
def run_local(
    jobs: list[Job],
    on_done: Callable[[Job, dict, int], None],
    workers: int,
    gpus: Sequence[str] = (),
    **limits: float | None,
) -> None:
    """Run the jobs, `workers` at a time, spread over `gpus` if there are any, within run_job's `limits`; call on_done
    with each record and `workers`. A job of several processes counts as so many.

    A record's status is done, failed, or else "finished" (there was nothing to do) or "locked" (another invocation is
    at it). An exception here, KeyboardInterrupt above all, ends the scripts that run before it goes on.
    """
    slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for i in range(workers):
        slots.put({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {})
    stop, running, turn = threading.Event(), {}, threading.Lock()

    def work(job: Job) -> dict:
        with turn:  # or two jobs could hold a part of what each needs
            variables, *more = (slots.get() for _ in range(min(job.processes(), workers)))
        running[job.name] = job
        try:
            with claim(job) as over:
                return {"status": over} if over else run_job(job, **limits, variables=variables, stop=stop)
        except OSError as error:
            return {"status": "failed", "reason": f"the benchmark could not begin: {error.strerror}"}
        finally:
            del running[job.name]
            for each in (variables, *more):
                slots.put(each)

    threads = ThreadPoolExecutor(slots.qsize())
    try:
        futures = {threads.submit(work, job): job for job in jobs}
        waiting, shown = set(futures), time.monotonic()
        while waiting:
            finished, waiting = wait(waiting, SHOW, FIRST_COMPLETED)
            for future in finished:
                on_done(futures[future], future.result(), workers)
            if time.monotonic() - shown >= SHOW:
                show(list(running.values()))
                shown = time.monotonic()
    finally:
        stop.set()
        threads.shutdown(cancel_futures=True)
