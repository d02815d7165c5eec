"""The same jobs on a Ray cluster, of one machine or many, which share a file system."""

import math
import os
import socket
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from tempfile import NamedTemporaryFile

from .grid import ROOT, BadInput, Job
from .pool import GRACE, SHOW, claim, new_record, run_job, save_record, show

IN_FLIGHT = 256  # jobs handed to Ray at a time; each holds its lock, and so an open file


def check_address(address: str) -> None:
    """Refuse a host:port that nobody listens at; Ray itself would try for minutes."""
    host, colon, port = address.rpartition(":")
    if colon and "/" not in address and port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=10).close()
        except (OSError, OverflowError) as error:
            raise BadInput(f"no Ray cluster answers at --address {address}: {error}") from None


def unseen(paths: list[Path]) -> list[str]:
    """Those of the paths that do not exist on this node."""
    return [str(path) for path in paths if not path.exists()]


def probe(jobs: list[Job]) -> None:
    """Refuse a cluster of which some node does not see the folder of the runs or the scripts, before any run is lost
    there."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    folder = jobs[0].directory.parent
    folder.mkdir(parents=True, exist_ok=True)
    nodes = [node for node in ray.nodes() if node["Alive"] and node["Resources"].get("CPU")]
    with NamedTemporaryFile(dir=folder, prefix="probe-") as marker:
        paths = [Path(marker.name), *{job.script for job in jobs}]
        for node in nodes:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            try:
                bad = ray.get(
                    ray.remote(num_cpus=0)(unseen).options(scheduling_strategy=there).remote(paths), timeout=60
                )
            except ray.exceptions.RayTaskError as error:  # it has not even this module
                bad = [type(error).__name__]
            except ray.exceptions.RayError:  # a node that is lost, and does not know it yet: no work goes there either
                continue
            if bad:
                where = f"the Ray node {node['NodeManagerHostname']} does not share the folder of runs and scripts"
                raise BadInput(f"{where}: {', '.join(bad)}")


def run_ray(
    jobs: list[Job],
    on_done: Callable[[Job, dict, int], None],
    address: str = "local",
    runs_per_gpu: int | None = None,
    node_losses: int = 3,
    **limits: float | None,
) -> None:
    """Run the jobs on the cluster at `address` (local: one of this machine alone), as run_local does on this machine.

    Each job asks Ray for a CPU for each of its processes and, with `runs_per_gpu`, for that fraction of a GPU; Ray
    places it. Where a node is lost, Ray starts its jobs on other ones, up to `node_losses` times each, and they go on
    from their checkpoints.
    """
    try:
        import ray
    except ImportError:
        raise BadInput("--executor ray needs Ray: pip install -r benchmark/requirements-ray.txt") from None
    check_address(address)
    gpus = 1 / runs_per_gpu if runs_per_gpu else 0
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    try:
        ray.init(address=address, runtime_env={"env_vars": {"PYTHONPATH": path}}, log_to_driver=False)
    except (ConnectionError, ValueError) as error:
        raise BadInput(f"no Ray cluster answers at --address {address}: {error}") from None
    # Ray hides the GPUs from a task that asked for one it did not get, but not from a task that asked for none.
    variables = {} if gpus else {"CUDA_VISIBLE_DEVICES": ""}
    remote = ray.remote(num_gpus=gpus, max_retries=node_losses)(run_job)
    most = max(node["Resources"].get("CPU", 1) for node in ray.nodes())  # a job that asks for more would never begin

    def finish(job: Job, record: dict) -> None:
        have = ray.cluster_resources()
        workers = min(have.get("CPU", 1), have.get("GPU", 1) / gpus if gpus else math.inf)
        on_done(job, record, max(int(workers), 1))

    waiting, running = list(reversed(jobs)), {}  # running: future -> job, and its lock: held here rather than on a node
    try:
        if gpus and not ray.cluster_resources().get("GPU"):
            raise BadInput("--runs-per-gpu: the Ray cluster has no GPU; leave it out to run on CPUs")
        if jobs:
            probe(jobs)
        while waiting or running:
            while waiting and len(running) < IN_FLIGHT:
                job, lock = waiting.pop(), ExitStack()
                try:
                    over = lock.enter_context(claim(job))
                except OSError as error:
                    finish(job, {"status": "failed", "reason": f"the benchmark could not begin: {error.strerror}"})
                    continue
                if over:
                    lock.close()
                    finish(job, {"status": over})
                else:
                    placed = remote.options(num_cpus=min(job.processes(), most))
                    running[placed.remote(job, **limits, variables=variables)] = job, lock
            if not running:
                continue
            ready, _ = ray.wait(list(running), num_returns=1, timeout=SHOW)
            if not ready:
                show([job for job, _ in running.values()])
                continue
            (future,) = ready
            job, lock = running[future]
            try:
                record = ray.get(future)
            except ray.exceptions.RayError as error:
                record = new_record(job) | {"status": "failed", "reason": f"Ray lost it: {type(error).__name__}"}
                with suppress(OSError):
                    save_record(job, record)
                    with (job.directory / "log.txt").open("a", encoding="utf-8") as log:
                        print(error, file=log)  # names machines, so it is nothing for the record and the report
            del running[future]
            lock.close()
            finish(job, record)
    finally:
        for future in running:
            ray.cancel(future)  # a KeyboardInterrupt in run_job, which then ends its script
        if running:
            ray.wait(list(running), num_returns=len(running), timeout=GRACE + 30)
        for _, lock in running.values():
            lock.close()
        ray.shutdown()
