"""The same jobs on a Ray cluster, of one machine or many, which share a file system."""

import math
import os
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field

from .grid import ROOT, Job
from .pool import (
    GRACE,
    SHOW,
    WATCH,
    claim,
    failure,
    has_summary,
    new_record,
    run_job,
    save_record,
    show,
)  # fmt: skip
from .words import BadInput

IN_FLIGHT = 256  # jobs handed to Ray at a time; each holds its lock, and so an open file


def connect(address: str) -> None:
    """Join the cluster at `address`, where this repository can be imported."""
    try:
        import ray
    except ImportError:
        what = "--executor ray needs Ray: pip install -r benchmark/requirements-ray.txt"
        raise BadInput(what) from None
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    env = {"env_vars": {"PYTHONPATH": path}}
    try:
        ray.init(address=address, runtime_env=env, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise BadInput(f"no Ray cluster answers at --address {address}: {error}") from None


def outcome(job: Job, future: object, pruned: str) -> dict:
    """The record of a job that Ray has ended; a failed one where Ray lost it, unless it was
    `pruned` for a reason."""
    import ray

    try:
        return ray.get(future)
    except ray.exceptions.RayError as error:
        status, reason = "failed", f"Ray lost it: {type(error).__name__}"
        if pruned:
            status, reason = ("done", "") if has_summary(job) else ("pruned", pruned)
        record = new_record(job) | {"status": status, "reason": reason}
        with suppress(OSError):
            save_record(job, record)
            with (job.directory / "log.txt").open("a", encoding="utf-8") as log:
                print(error, file=log)  # names machines: nothing for record and report
        return record


@dataclass
class Cluster:
    """A Ray cluster that this process has joined, and the jobs that it has in hand there."""

    on_done: Callable[[Job, dict, int], None]
    runs_per_gpu: int | None
    node_losses: int
    limits: dict[str, float | None]
    running: dict = field(default_factory=dict)  # future -> job and its lock, held here
    pruned: dict[str, str] = field(default_factory=dict)  # by job: why it is to end

    def __post_init__(self):
        import ray

        self.ray, self.gpus = ray, 1 / self.runs_per_gpu if self.runs_per_gpu else 0
        self.remote = ray.remote(num_gpus=self.gpus, max_retries=self.node_losses)(run_job)
        # Ray hides the GPUs from a task that asked for one it did not get, but not from a task
        # that asked for none.
        self.variables = {} if self.gpus else {"CUDA_VISIBLE_DEVICES": ""}
        # A job that asks for more CPUs than a node has would never begin.
        self.most = max(node["Resources"].get("CPU", 1) for node in ray.nodes())

    def workers(self) -> int:
        """How many runs find room at a time."""
        have = self.ray.cluster_resources()
        room = have.get("GPU", 1) / self.gpus if self.gpus else math.inf
        return max(int(min(have.get("CPU", 1), room)), 1)

    def finish(self, job: Job, record: dict) -> None:
        self.on_done(job, record, self.workers())

    def begin(self, job: Job) -> None:
        """Hand a job to Ray, unless there is nothing to run."""
        lock = ExitStack()
        try:
            over = lock.enter_context(claim(job))
        except OSError as error:
            self.finish(job, failure("begin", error))
            return
        if over:
            lock.close()
            self.finish(job, {"status": over})
            return
        placed = self.remote.options(num_cpus=min(job.processes(), self.most))
        future = placed.remote(job, **self.limits, variables=self.variables)
        self.running[future] = job, lock

    def collect(self, seconds: float) -> bool:
        """Take in a job that ends within so many seconds; return whether one did."""
        ready, _ = self.ray.wait(list(self.running), num_returns=1, timeout=seconds)
        for future in ready:
            job, lock = self.running[future]
            record = outcome(job, future, self.pruned.get(job.name, ""))
            del self.running[future]
            lock.close()
            self.finish(job, record)
        return bool(ready)

    def prune(self, watch: Callable[[Job], str]) -> None:
        """End the jobs of which `watch` says why they should."""
        for future, (job, _) in self.running.items():
            if job.name not in self.pruned and (reason := watch(job)):
                self.pruned[job.name] = reason
                self.ray.cancel(future)

    def close(self) -> None:
        """End what still runs: a KeyboardInterrupt in run_job, which then ends its script."""
        for future in self.running:
            self.ray.cancel(future)
        if self.running:
            futures = list(self.running)
            self.ray.wait(futures, num_returns=len(futures), timeout=GRACE + 30)
        for _, lock in self.running.values():
            lock.close()
        self.ray.shutdown()


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
    cluster = Cluster(on_done, runs_per_gpu, node_losses, limits)
    source, at_once = iter(jobs), IN_FLIGHT
    pause = min(SHOW, WATCH) if watch else SHOW
    try:
        if runs_per_gpu and not cluster.ray.cluster_resources().get("GPU"):
            what = "the Ray cluster has no GPU; leave it out to run on CPUs"
            raise BadInput(f"--runs-per-gpu: {what}")
        if not isinstance(jobs, Sequence):  # they are made one by one, by what became of others
            at_once = cluster.workers()
        shown = time.monotonic()
        while True:
            while len(cluster.running) < at_once and (job := next(source, None)):
                cluster.begin(job)
            if not cluster.running:
                break
            ended = cluster.collect(pause)
            if watch:
                cluster.prune(watch)
            if not ended and time.monotonic() - shown >= SHOW:
                show(job for job, _ in cluster.running.values())
                shown = time.monotonic()
    finally:
        cluster.close()
