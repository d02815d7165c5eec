"""The Ray executor on a cluster of several nodes on this machine."""

import json
import shutil
import threading
from pathlib import Path

import pytest
from harness import is_alive, wait_until
from ray.cluster_utils import Cluster

from benchmark.grid import BadInput, Job, load_suite, make_jobs
from benchmark.pool import claim
from benchmark.ray_pool import run_ray

SUITE = """
seeds = [1]
[environments.CartPole-v1]
total_timesteps = 100
[environments.Acrobot-v1]
total_timesteps = 100
[algorithms]
wait = { script = "SCRIPT", flags = { behaviour = "wait" } }
crash = { script = "SCRIPT", flags = { behaviour = "crash" } }
"""


def test_a_lost_node_costs_no_run(tmp_path):
    script = tmp_path / "fake_script.py"
    shutil.copy(Path(__file__).parent / "fake_script.py", script)
    suite = tmp_path / "suite.toml"
    suite.write_text(SUITE.replace("SCRIPT", str(script)))
    jobs = make_jobs(load_suite(str(suite)), tmp_path / "runs")
    waiting = [job for job in jobs if job.algorithm == "wait"]
    jobs = waiting + [job for job in jobs if job.algorithm == "crash"]
    histories = [job.directory / "history.txt" for job in waiting]
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
    records = {}
    try:
        cluster.add_node(num_cpus=1)
        doomed = cluster.add_node(num_cpus=1)
        cluster.wait_for_nodes()

        def lose_a_node() -> None:
            wait_until(
                lambda: all((job.run_dir / "checkpoint.pt").exists() for job in waiting)
            )  # one on each node
            cluster.remove_node(doomed, allow_graceful=False)
            wait_until(
                lambda: sum(is_alive(path.read_text().split()[1]) for path in histories) == 1
            )
            (tmp_path / "runs" / "go").touch()

        thread = threading.Thread(target=lose_a_node)
        thread.start()
        run_ray(
            jobs,
            lambda job, record, _: records.update({job.name: record}),
            cluster.address,
            retries=0,
        )
        thread.join()
    finally:
        cluster.shutdown()
    assert {name: record["status"] for name, record in records.items()} == {
        "CartPole-v1__wait__1": "done", "Acrobot-v1__wait__1": "done",
        "CartPole-v1__crash__1": "failed", "Acrobot-v1__crash__1": "failed",
    }  # fmt: skip
    starts = sorted(
        [line.split()[0] for line in path.read_text().splitlines()] for path in histories
    )
    assert starts == [
        ["start"],
        ["start", "resume"],
    ]  # the lost run went on from its checkpoint
    assert all(
        line.split()[2:] == [] for path in histories for line in path.read_text().splitlines()
    )  # no GPU


@pytest.fixture(scope="module")
def cluster():
    """A cluster of one node with two CPUs and no GPU."""
    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "num_gpus": 0})
    yield one
    one.shutdown()


def make(tmp_path: Path, *behaviours: str) -> list[Job]:
    """A job for each behaviour of the fake script."""
    script = tmp_path / "fake_script.py"
    shutil.copy(Path(__file__).parent / "fake_script.py", script)
    algorithms = {
        name: {"script": str(script), "flags": {"behaviour": name}} for name in behaviours
    }
    suite = {
        "seeds": [1],
        "environments": {"CartPole-v1": {"total_timesteps": 100}},
        "algorithms": algorithms,
    }
    return make_jobs(suite, tmp_path / "runs")


def test_interrupted_it_ends_the_scripts_before_it_frees_the_locks(tmp_path, cluster):
    waiting, crashing = make(tmp_path, "wait", "crash")
    history = waiting.directory / "history.txt"

    def interrupt(job, record, workers) -> None:
        assert job == crashing
        wait_until((waiting.run_dir / "checkpoint.pt").exists)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_ray([waiting, crashing], interrupt, cluster.address, retries=0)
    assert not is_alive(int(history.read_text().split()[1]))
    assert json.loads((waiting.directory / "job.json").read_text())["status"] == "running"
    with claim(waiting) as over:
        assert over == ""


def test_what_ray_lost_or_nobody_can_claim_is_recorded(tmp_path, cluster):
    lost, blocked, good = make(tmp_path, "kill-parent", "crash", "ok")
    blocked.directory.parent.mkdir()
    blocked.directory.write_text("a file in its place")
    records = {}
    run_ray(
        [lost, blocked, good],
        lambda job, record, _: records.update({job.name: record}),
        cluster.address, retries=0, node_losses=0,
    )  # fmt: skip
    assert records[good.name]["status"] == "done"
    assert records[blocked.name] == {
        "status": "failed",
        "reason": "the benchmark could not begin: File exists",
    }
    assert records[lost.name]["reason"] == "Ray lost it: WorkerCrashedError"
    assert "worker died" in (lost.directory / "log.txt").read_text()
    saved = json.loads((lost.directory / "job.json").read_text())
    assert (saved["status"], saved["reason"]) == ("failed", records[lost.name]["reason"])


def test_a_cluster_without_gpus_is_bad_input(tmp_path, cluster):
    with pytest.raises(BadInput, match="the Ray cluster has no GPU"):
        run_ray(make(tmp_path, "ok"), lambda *_: None, cluster.address, runs_per_gpu=2)


def test_no_cluster_is_bad_input():
    with pytest.raises(BadInput, match="no Ray cluster answers at --address"):
        run_ray([], lambda *_: None, "127.0.0.1:1")
