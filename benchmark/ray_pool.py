"""The same jobs on a Ray cluster, of one machine or many, which share a file system."""

import math
import os
import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from itertools import chain
from pathlib import Path
from tempfile import NamedTemporaryFile

from .grid import ROOT, Job
from .pool import GRACE, SHOW, WATCH, claim, failure, new_record, run_job, save_record, show
from .words import BadInput

IN_FLIGHT = 256  # jobs handed to Ray at a time; each holds its lock, and so an open file


def check_address(address: str) -> None:
    """Refuse a host:port that nobody listens at; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            what = f"no Ray cluster answers at --address {address}: {error}"
            raise BadInput(what) from None


def connect(address: str) -> None:
    """Join the cluster at `address`, where this repository can be imported."""
    try:
        import ray
    except ImportError:
        what = "--executor ray needs Ray: pip install -r benchmark/requirements-ray.txt"
        raise BadInput(what) from None
    check_address(address)
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {"env_vars": {"PYTHONPATH": path}}
    try:
        ray.init(address=address, runtime_env=env, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise BadInput(f"no Ray cluster answers at --address {address}: {error}") from None


def unseen(paths: list[Path]) -> list[str]:
    """Those of the paths that do not exist on this node."""
    return [str(path) for path in paths if not path.exists()]


def probe(jobs: list[Job]) -> None:
    """Refuse a cluster of which some node does not see the folder of the runs or the scripts,
    before any run is lost there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = jobs[0].directory.parent
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    with NamedTemporaryFile(dir=folder, prefix="probe-") as marker:
        paths = [Path(marker.name), *{job.script for job in jobs}]
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            look = ray.remote(num_cpus=0)(unseen).options(scheduling_strategy=there)
            try:
                bad = ray.get(look.remote(paths), timeout=60)
            except ray.exceptions.RayTaskError as error:  # it has not even this module
                bad = [type(error).__name__]
            except ray.exceptions.RayError:  # lost, which Ray has yet to see: it gets no work
                continue
            if bad:
                what = "does not share the folder of runs and scripts"
                what = f"the Ray node {node['NodeManagerHostname']} {what}"
                raise BadInput(f"{what}: {', '.join(bad)}")


def outcome(job: Job, future: object, pruned: str) -> dict:
    """The record of a job that Ray has ended; a failed one where Ray lost it, unless it was
    `pruned` for a reason."""
    import ray

    try:
        return ray.get(future)
    except ray.exceptions.RayError as error:
        status, reason = "failed", f"Ray lost it: {type(error).__name__}"
        if pruned:
            status, reason = "pruned", pruned
        record = new_record(job) | {"status": status, "reason": reason}
        with suppress(OSError):
            save_record(job, record)
            with (job.directory / "log.txt").open("a", encoding="utf-8") as log:
                print(error, file=log)  # names machines: nothing for record and report
        return record


def run_ray(
    jobs: Iterable[Job | None],
    on_done: Callable[[Job, dict, int], None],
    address: str = "local",
    runs_per_gpu: int | None = None,
    node_losses: int = 3,
    watch: Callable[[Job], str] | None = None,
    **limits: float | None,
) -> None:
    """Run the jobs on the cluster at `address` (local: one of this machine alone), as run_local
    does on this machine.

    Each job asks Ray for a CPU for each of its processes and, with `runs_per_gpu`, for that
    fraction of a GPU; Ray places it. Where a node is lost, Ray starts its jobs on other ones,
    up to `node_losses` times each, and they go on from their checkpoints.
    """
    connect(address)
    import ray

    gpus = 1 / runs_per_gpu if runs_per_gpu else 0
    # Ray hides the GPUs from a task that asked for one it did not get, but not from a task that
    # asked for none.
    variables = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    remote = ray.remote(num_gpus=gpus, max_retries=node_losses)(run_job)
    # A job that asks for more CPUs than a node has would never begin.
    most = max(node["Resources"].get("CPU", 1) for node in ray.nodes())
    running: dict = {}  # future -> job and its lock, held here rather than on a node
    pruned: dict[str, str] = {}

    def begin(job: Job) -> None:
        lock = ExitStack()
        try:
            over = lock.enter_context(claim(job))
        except OSError as error:
            return finish(job, failure("begin", error))
        if over:
            lock.close()
            return finish(job, {"status": over})
        placed = remote.options(num_cpus=min(job.processes(), most))
        running[placed.remote(job, **limits, variables=variables)] = job, lock
        return None

    def workers() -> int:
        have = ray.cluster_resources()
        room = have.get("GPU", 1) / gpus if gpus else math.inf
        return max(int(min(have.get("CPU", 1), room)), 1)

    def finish(job: Job, record: dict) -> None:
        on_done(job, record, workers())

    source, at_once = iter(jobs), IN_FLIGHT
    try:
        if gpus and not ray.cluster_resources().get("GPU"):
            what = "the Ray cluster has no GPU; leave it out to run on CPUs"
            raise BadInput(f"--runs-per-gpu: {what}")
        known = jobs
        if not isinstance(jobs, Sequence):  # they are made one by one, by what became of others
            known, at_once = [job for job in [next(source, None)] if job], workers()
            source = chain(known, source)
        if known:
            probe(known)
        shown = time.monotonic()
        while True:
            while len(running) < at_once and (job := next(source, None)):
                begin(job)
            if not running:
                break
            pause = min(SHOW, WATCH) if watch else SHOW
            ready, _ = ray.wait(list(running), num_returns=1, timeout=pause)
            for future in ready:
                job, lock = running[future]
                record = outcome(job, future, pruned.get(job.name, ""))
                del running[future]
                lock.close()
                finish(job, record)
            for future, (job, _) in running.items() if watch else ():
                if job.name not in pruned and (reason := watch(job)):
                    pruned[job.name] = reason
                    ray.cancel(future)
            if not ready and time.monotonic() - shown >= SHOW:
                show(job for job, _ in running.values())
                shown = time.monotonic()
    finally:
        for future in running:
            ray.cancel(future)  # a KeyboardInterrupt in run_job, which then ends its script
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=GRACE + 30)
        for _, lock in running.values():
            lock.close()
        ray.shutdown()
