"""Brings jobs to their end: each script in a process of its own, restarted, resumed and timed
out as need be.

A job's directory is <suite folder>/<env_id>__<algorithm>__<seed> and holds
    job.json       what was asked for and how it went
    log.txt        the command lines and all that the script printed
    run/           the run directory, which only the script writes
    superseded-K/  earlier run directories that could not be gone on with; never read or deleted
    lock           held by the invocation that runs the job
"""

import fcntl
import hashlib
import os
import queue
import shlex
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import count, takewhile
from math import isfinite
from pathlib import Path

from .files import read_json, write_json
from .grid import Job
from .machine import commit_of, cpu_model, gpu_model, installed_version
from .words import BadInput

GRACE = 5.0  # seconds that a script has to end by itself once interrupted
SHOW = 30.0  # seconds between two looks at what runs
WATCH = 5.0  # seconds between two looks at whether a run should go on, if a command asks for it

# The script dies with the process (on Linux) that started it, even where that one is killed: a
# lost node or a killed invocation must not leave a script behind that writes to a run directory
# which someone else goes on with.
LAUNCHER = """
import ctypes, os, signal, sys
ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
if os.getppid() != int(sys.argv[1]):
    sys.exit("error: the benchmark ended before the script began")
os.execv(sys.executable, [sys.executable, *sys.argv[2:]])
"""


# ==============================================================================================
# Records
# ==============================================================================================
@contextmanager
def locked(directory: Path, waits: bool = False) -> Iterator[bool]:
    """Hold the folder's lock, which the kernel frees with the process. Yields whether it could
    be had."""
    directory.mkdir(parents=True, exist_ok=True)
    with (directory / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX if waits else fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def save_grid(directory: Path, jobs: list[Job]) -> None:
    """Add the jobs to grid.json: what all invocations asked for, so that a report can name what
    never began."""
    with locked(directory, waits=True):
        grid = read_json(directory / "grid.json") or {}
        for job in jobs:
            about = {"algorithm": job.algorithm, "env_id": job.env_id, "seed": job.seed}
            grid[job.name] = about
        write_json(directory / "grid.json", grid)


def differences(job: Job) -> list[str]:
    """What the results or the checkpoint there were made with that the job would not have:
    flags, script, versions."""
    if not any((job.run_dir / name).exists() for name in ("summary.json", "checkpoint.pt")):
        return []
    record, args = read_json(job.directory / "job.json"), read_json(job.run_dir / "args.json")
    now = {"environment": job.env_id, "seed": job.seed, "--": shlex.join(job.extra)}
    try:
        then = {"environment": record["env_id"], "seed": record["seed"]}
        then["--"] = shlex.join(record["extra"])
        now, then, script = job.flags | now, record["flags"] | then, args["script_sha256"]
        versions = {k: str(version).split("+")[0] for k, version in args["versions"].items()}
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
    others = [name for name in versions if here[name] != versions[name]]
    return found + [f"versions: {k} {here[k]} instead of {versions[k]}" for k in others]


def check_flags(jobs: list[Job]) -> None:
    """Start every script once with each set of flags, where it costs no training: with a run
    directory that exists, which a script refuses by its name once it has accepted all else."""
    with tempfile.TemporaryDirectory() as name:
        (Path(name) / "run").mkdir()
        for job in {(job.script, *job.words()[4:]): job for job in jobs}.values():
            # on the CPU, since another device may be on other nodes
            words = [*command(replace(job, directory=Path(name))), "--device", "cpu"]
            result = subprocess.run(
                words, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                cwd=job.folder, env=os.environ | job.variables(),
            )  # fmt: skip
            if result.returncode != 2 or name not in result.stderr:
                why = "".join(ending(result.stderr, 1)).removeprefix("error: ")
                why = why or f"exit status {result.returncode}"
                where = f"{job.algorithm} on {job.env_id}; nothing was moved or run"
                raise BadInput(f"{why} ({where})")


def has_summary(job: Job) -> bool:
    """Whether the script came to its end: it writes the summary last. One with numbers that are
    not finite is none."""
    summary = read_json(job.run_dir / "summary.json")
    numbers = [x for x in (summary or {}).values() if isinstance(x, float)]
    return summary is not None and all(map(isfinite, numbers))


def set_aside(job: Job) -> None:
    """Move a run directory that cannot be gone on with out of the way; it is kept."""
    places = (job.directory / f"superseded-{k}" for k in count(1))
    job.run_dir.rename(next(place for place in places if not place.exists()))


@contextmanager
def claim(job: Job) -> Iterator[str]:
    """Hold the job's lock. Yields why there is nothing to run, or "".

    "locked": another invocation holds it; "finished": the run is there.
    """
    with locked(job.directory) as mine:
        if not mine:
            yield "locked"
        elif has_summary(job) and not differences(job):
            record = read_json(job.directory / "job.json")  # gets what the suite has now
            now = record | {"score_range": job.score_range, "threshold": job.threshold}
            if now != record:
                save_record(job, now)
            yield "finished"
        else:
            yield ""


# ==============================================================================================
# One job
# ==============================================================================================
def command(job: Job, resume: bool = False) -> list[str]:
    """The command line of the job, from the interpreter on."""
    if resume:
        return [sys.executable, str(job.script), "--resume", str(job.run_dir)]
    return [sys.executable, str(job.script), *job.words(), "--run-dir", str(job.run_dir)]


def run_job(
    job: Job,
    retries: int = 1,
    timeout: float | None = None,
    variables: dict[str, str] | None = None,
    stop: threading.Event | None = None,
) -> dict:
    """Run the job's script until it succeeds, has failed 1 + `retries` times, or `stop` is set;
    return its record.

    A half-finished run is resumed from its checkpoint. Exit status 2 says that the input is
    bad, so the same command is not tried again; where it answers --resume, the checkpoint is no
    good and the run starts anew. An attempt may take `timeout` seconds; `variables` join the
    environment. The caller holds the job's lock.
    """
    visible = (variables or os.environ).get("CUDA_VISIBLE_DEVICES", "")  # as Ray sets it
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
            words = command(job, resume)
            status, reason = attempt(job, words, timeout, variables or {}, stop)
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
        record |= failure("go on", error)
    return record


def failure(what: str, error: OSError) -> dict:
    """What a record says where not the script failed, but the benchmark."""
    reason = f"the benchmark could not {what}: {error.strerror}"
    return {"status": "failed", "reason": reason}


def new_record(job: Job) -> dict:
    """What job.json holds of a job that begins."""
    return {
        "algorithm": job.algorithm, "script": job.script.name, "env_id": job.env_id,
        "commit": commit_of(job.script),
        "seed": job.seed, "flags": job.flags, "extra": list(job.extra),
        "score_range": job.score_range, "threshold": job.threshold,
        "status": "running", "reason": "", "attempts": 0, "resumes": 0,
    }  # fmt: skip


def save_record(job: Job, record: dict) -> None:
    """Write job.json."""
    write_json(job.directory / "job.json", record)


def attempt(
    job: Job,
    words: list[str],
    timeout: float | None,
    variables: dict[str, str],
    stop: threading.Event | None,
) -> tuple[str, str]:
    """Run one command to its end. Returns ("done", ""), ("failed", why) or
    ("interrupted", "")."""
    if stop is not None and stop.is_set():
        return "interrupted", ""
    launched = words
    if sys.platform == "linux":
        launched = [sys.executable, "-c", LAUNCHER, str(os.getpid()), *words[1:]]
    threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}
    with (job.directory / "log.txt").open("a", encoding="utf-8") as log:
        print("$", shlex.join(words), file=log, flush=True)
        # In a session of its own all of it can be ended, and no terminal's Ctrl-C hits it.
        process = subprocess.Popen(
            launched, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            cwd=job.folder, env=os.environ | threads | job.variables() | variables,
            start_new_session=True,
        )  # fmt: skip
        try:
            reason = follow(process, timeout, stop)
        finally:
            end(process)
    if has_summary(job):
        return "done", ""
    if reason is None:
        return "interrupted", ""
    if not reason and process.returncode < 0:
        reason = f"killed by {signal.Signals(-process.returncode).name}"
    elif not reason and process.returncode > 0:
        reason = f"exit status {process.returncode}"
    return "failed", reason or "exit status 0, but no finite summary.json"


def follow(
    process: subprocess.Popen, timeout: float | None, stop: threading.Event | None
) -> str | None:
    """Wait until the process ends (""), must end (why), or `stop` is set (None)."""
    begun = time.monotonic()
    while process.poll() is None:
        if stop is not None and stop.is_set():
            return None
        if timeout and time.monotonic() - begun > timeout:
            return f"timed out after {timeout:g} s"
        with suppress(subprocess.TimeoutExpired):
            process.wait(0.2)
    return ""


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
    """The last lines of an output that are not empty; where it ends with a box, what the box
    says at its top."""
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


def show(jobs: Iterable[Job]) -> None:
    """Print how far each run is: what the script last said of its steps and return."""
    for job in jobs:
        lines = read_output(job).splitlines()[-20:]
        if steps := [line for line in lines if line.startswith("step ")]:
            print(f"  {job.name}: {steps[-1]}", flush=True)


# ==============================================================================================
# All jobs, on this machine
# ==============================================================================================
def run_local(
    jobs: Iterable[Job | None],
    on_done: Callable[[Job, dict, int], None],
    workers: int,
    gpus: Sequence[str] = (),
    watch: Callable[[Job], str] | None = None,
    **limits: float | None,
) -> None:
    """Run the jobs, `workers` at a time, spread over `gpus` if there are any, within run_job's
    `limits`; call on_done with each record and `workers`. A job of several processes counts as
    so many. Jobs are taken as workers get free; None stands for none at the moment.

    A record's status is done, failed, or else "finished" (there was nothing to do), "locked"
    (another invocation is at it), or "pruned": `watch` said why it should end. An exception
    here, KeyboardInterrupt above all, ends the scripts that run before it goes on.
    """
    slots: queue.SimpleQueue[dict[str, str]] = queue.SimpleQueue()
    for i in range(workers):
        slots.put({"CUDA_VISIBLE_DEVICES": gpus[i % len(gpus)]} if gpus else {})
    running, turn = {}, threading.Lock()
    stops: dict[str, threading.Event] = {}
    pruned: dict[str, str] = {}

    def work(job: Job) -> dict:
        with turn:  # or two jobs could hold a part of what each needs
            held = [slots.get() for _ in range(min(job.processes(), workers))]
        running[job.name] = job
        try:
            with claim(job) as over:
                if over:
                    return {"status": over}
                record = run_job(job, **limits, variables=held[0], stop=stops[job.name])
                if record["status"] == "interrupted" and job.name in pruned:
                    record |= {"status": "pruned", "reason": pruned[job.name]}
                    save_record(job, record)
                return record
        except OSError as error:
            return failure("begin", error)
        finally:
            del running[job.name]
            for variables in held:
                slots.put(variables)

    threads, source, futures = ThreadPoolExecutor(workers), iter(jobs), {}
    shown = time.monotonic()
    try:
        while True:
            while len(futures) < workers and (job := next(source, None)):
                stops[job.name] = threading.Event()
                futures[threads.submit(work, job)] = job
            if not futures:
                break
            finished, _ = wait(futures, min(SHOW, WATCH) if watch else SHOW, FIRST_COMPLETED)
            for future in finished:
                on_done(futures.pop(future), future.result(), workers)
            for job in futures.values() if watch else ():
                if job.name not in pruned and (reason := watch(job)):
                    pruned[job.name] = reason
                    stops[job.name].set()
            if time.monotonic() - shown >= SHOW:
                show(list(running.values()))
                shown = time.monotonic()
    finally:
        for stop in stops.values():
            stop.set()
        threads.shutdown(cancel_futures=True)
