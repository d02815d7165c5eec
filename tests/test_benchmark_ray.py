"""The Ray executor on a cluster of several nodes on this machine."""

import shutil
import threading
from pathlib import Path

import pytest
from benchmark_helpers import is_alive, wait_until
from ray.cluster_utils import Cluster

from benchmark.grid import BadInput, load_suite, make_jobs
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
            wait_until(lambda: all((job.run_dir / "checkpoint.pt").exists() for job in waiting))  # one on each node
            cluster.remove_node(doomed, allow_graceful=False)
            wait_until(lambda: sum(is_alive(path.read_text().split()[1]) for path in histories) == 1)
            (tmp_path / "runs" / "go").touch()

        thread = threading.Thread(target=lose_a_node)
        thread.start()
        run_ray(jobs, lambda job, record: records.update({job.name: record}), cluster.address, retries=0)
        thread.join()
    finally:
        cluster.shutdown()
    assert {name: record["status"] for name, record in records.items()} == {
        "CartPole-v1__wait__1": "done", "Acrobot-v1__wait__1": "done",
        "CartPole-v1__crash__1": "failed", "Acrobot-v1__crash__1": "failed",
    }  # fmt: skip
    starts = sorted([line.split()[0] for line in path.read_text().splitlines()] for path in histories)
    assert starts == [["start"], ["start", "resume"]]  # the lost run went on from its checkpoint
    assert all(line.split()[2:] == [] for path in histories for line in path.read_text().splitlines())  # no GPU


def test_no_cluster_is_bad_input():
    with pytest.raises(BadInput, match="no Ray cluster answers at --address"):
        run_ray([], lambda job, record: None, "127.0.0.1:1")
