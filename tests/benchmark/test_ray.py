"""The Ray executor on a cluster of several nodes on this machine."""

import json
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest
import ray
from harness import is_alive, wait_until
from ray.cluster_utils import Cluster

from benchmark import __main__ as program
from benchmark.grid import BadInput, Job, make_jobs
from benchmark.pool import claim
from benchmark.ray_pool import run_ray


@pytest.fixture(scope="module")
def cluster():
    """A cluster whose one node has one CPU and no GPU."""
    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "num_gpus": 0})
    yield one
    one.shutdown()


def make(tmp_path: Path, *behaviours: str, seeds: tuple[int, ...] = (1,)) -> list[Job]:
    """A job for each behaviour of the fake script and each seed."""
    script = tmp_path / "fake_script.py"
    shutil.copy(Path(__file__).parent / "fake_script.py", script)
    algorithms = {
        name: {"script": str(script), "flags": {"behaviour": name}} for name in behaviours
    }
    suite = {
        "seeds": list(seeds),
        "environments": {"CartPole-v1": {"total_timesteps": 100}},
        "algorithms": algorithms,
    }
    return make_jobs(suite, tmp_path / "runs")


def starts(job: Job) -> list[list[str]]:
    """Of each start of the job's script: start or resume, its process, and its GPU."""
    path = job.directory / "history.txt"
    return [line.split(" ") for line in path.read_text().splitlines()]


def test_a_lost_node_costs_no_run(tmp_path, cluster):
    waiting = make(tmp_path, "wait", seeds=(1, 2))
    doomed = cluster.add_node(num_cpus=1)
    records = {}

    def lose_a_node() -> None:
        wait_until(
            lambda: all((job.run_dir / "checkpoint.pt").exists() for job in waiting)
        )  # one on each node
        cluster.remove_node(doomed, allow_graceful=False)
        wait_until(lambda: sum(is_alive(int(starts(job)[0][1])) for job in waiting) == 1)
        (tmp_path / "runs" / "go").touch()

    thread = threading.Thread(target=lose_a_node)
    thread.start()
    run_ray(
        waiting,
        lambda job, record, _: records.update({job.seed: record["status"]}),
        cluster.address, retries=0,
    )  # fmt: skip
    thread.join()
    assert records == {1: "done", 2: "done"}
    words = sorted([start[0] for start in starts(job)] for job in waiting)
    assert words == [["start"], ["start", "resume"]]  # the lost run went on from its checkpoint
    assert all(start[2] == "" for job in waiting for start in starts(job)), "no GPU"
    record = json.loads((waiting[0].directory / "job.json").read_text())
    assert record["attempts"] == len(starts(waiting[0]))


def test_runs_share_the_gpus_of_a_cluster(tmp_path, cluster):
    node = cluster.add_node(num_cpus=5, num_gpus=2)  # Ray believes what it is told
    jobs, workers = make(tmp_path, "wait", seeds=(1, 2, 3, 4)), []

    def go() -> None:
        wait_until(lambda: len(list(tmp_path.glob("runs/*/run/checkpoint.pt"))) == 4)
        (tmp_path / "runs" / "go").touch()

    thread = threading.Thread(target=go)
    thread.start()
    run_ray(jobs, lambda _, __, number: workers.append(number), cluster.address, runs_per_gpu=2)
    thread.join()
    cluster.remove_node(node)
    assert sorted(starts(job)[0][2] for job in jobs) == ["0", "0", "1", "1"]
    assert workers == [4] * 4


def test_a_run_takes_as_many_cpus_as_it_has_processes(tmp_path, cluster):
    """On one CPU and a node of two, one run of two processes and one of one: the second of two
    processes waits for the first."""
    node = cluster.add_node(num_cpus=2)
    wide, narrow = make(tmp_path, "wait", seeds=(1, 2)), make(tmp_path, "ok")
    script = tmp_path / "wide.py"
    script.write_text(wide[0].script.read_text() + '"""\n    num_workers: int = 2\n"""\n')
    wide = [replace(job, script=script) for job in wide]
    records = {}

    def on_done(job, record, workers) -> None:
        records[job.name] = record["status"]
        if job == narrow[0]:
            wait_until((wide[0].run_dir / "checkpoint.pt").exists)
            assert not (wide[1].directory / "history.txt").exists()
            (tmp_path / "runs" / "go").touch()

    run_ray([*wide, *narrow], on_done, cluster.address, retries=0)
    cluster.remove_node(node)
    assert records == {job.name: "done" for job in (*wide, *narrow)}


def test_interrupted_it_ends_the_scripts_before_it_frees_the_locks(tmp_path, cluster):
    crashing, waiting = make(tmp_path, "crash", "wait")

    def interrupt(job, record, workers) -> None:
        assert job == crashing
        wait_until((waiting.run_dir / "checkpoint.pt").exists)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_ray([crashing, waiting], interrupt, cluster.address, retries=0)
    assert not is_alive(int(starts(waiting)[0][1]))
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


def test_without_an_address_no_other_cluster_is_joined(tmp_path, monkeypatch):
    (job,) = make(tmp_path, "ok")
    monkeypatch.setattr(program, "make_jobs", lambda *_: [job])
    addresses = []

    def init(address, **options):
        addresses.append(address)
        raise ConnectionError

    monkeypatch.setattr(ray, "init", init)
    words = ["run", "smoke", "--dir", str(tmp_path / "runs"), "--executor", "ray"]
    assert program.main(words) == 2
    assert program.main([*words, "--address", "auto"]) == 2
    assert addresses == ["local", "auto"]  # Ray takes RAY_ADDRESS for auto and for nothing
