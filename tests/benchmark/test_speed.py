"""python -m benchmark speed: the plan, what is resumed and refused, the tables, and real
processes."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from fake_runs import write_run
from harness import PATIENCE, ROOT, is_alive, wait_until

from benchmark import __main__ as program
from benchmark import files, pool, speed
from benchmark.grid import BadInput, load_suite

SUITE = """
seeds = [1]
[environments.CartPole-v1]
total_timesteps = 512
[algorithms]
x = { script = "ppo.py", flags = { num_envs = 2 } }
sb3-x = { script = "benchmark/peers/sb3.py", flags = { num_envs = 2 } }
"""
SIZES = SUITE.replace("x =", "x-sizes =")
ELSEWHERE = SUITE.replace("2 } }\nsb3", '2 }, only = ["Acrobot-v1"] }\nsb3').replace(
    "[algorithms]", "[environments.Acrobot-v1]\ntotal_timesteps = 1\n[algorithms]"
)


@pytest.fixture
def suite(tmp_path):
    """Write a suite; return its path."""

    def write(text: str = SUITE) -> Path:
        (tmp_path / "suite.toml").write_text(text)
        return tmp_path / "suite.toml"

    return write


@pytest.fixture
def run(suite, tmp_path, monkeypatch):
    """Run the command on a suite with processes that only leave a run; return the exit
    status."""
    started = []

    def attempt(job, *_):
        started.append(job.name)
        return one.attempt(job)

    def one(text: str = SUITE, *words: object, only: str = "pairs", repeats: int = 2) -> int:
        started.clear()
        words = ["--only", only, "--repeats", repeats, *words]
        words = ["speed", "--suite", suite(text), "--dir", one.out, *words]
        return program.main([str(word) for word in words])

    one.started, one.out, one.attempt = started, tmp_path / "out", leave_run
    monkeypatch.setattr(pool, "attempt", attempt)
    return one


def leave_run(job) -> tuple[str, str]:
    """What a run leaves that made 200 steps per second, the peer 100, and reached a return of
    500, the peer 100."""
    peer = job.algorithm.startswith("sb3-")
    final = 100.0 if peer else 500.0
    write_run(job.run_dir, "ppo", job.env_id, job.seed, final_return=final)
    for name, new in (("summary", {"sps": 100.0 if peer else 200.0}), ("args", true_args(job))):
        path = job.run_dir / f"{name}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | new))
    (job.run_dir / "checkpoint.pt").touch()
    return "done", ""


def true_args(job) -> dict:
    """What a real script's args.json says of itself."""
    sha256 = hashlib.sha256(job.script.read_bytes()).hexdigest()
    return {"script_sha256": sha256, "versions": {"python": sys.version.split()[0]}}


def report(run) -> str:
    return (run.out / "report.md").read_text()


def row(contestant, seed, value, part="pairs", num_envs=4) -> list:
    """A row of speed.csv."""
    about = ["sha256", "{}", "a machine", 0.5]
    return [part, "CartPole-v1", contestant, num_envs, seed, value, *about]


# ==============================================================================================
# The plan
# ==============================================================================================
def test_the_shipped_suite_compares_at_equal_flags():
    args = program.parse_args(["speed"])
    seeds = range(args.seed + 1, args.seed + args.repeats + 1)
    assert load_suite("speed")["seeds"] == list(seeds) == [1, 2, 3, 4, 5]
    plan = speed.make_plan(load_suite("speed"), Path("x"), seeds)
    assert sorted({part for part, _ in plan}) == ["num_envs", "pairs"]
    assert len({job.directory for _, job in plan}) == len(plan)
    equal = {}
    for part, job in plan:
        flags = {name: x for name, x in job.flags.items() if name not in ("algo", "policy")}
        assert flags.pop("reward_scale", 1.0) == 1.0  # peers do not scale rewards
        key = (part, job.algorithm.removeprefix("sb3-"), job.flags["num_envs"], job.seed)
        equal.setdefault(key, []).append((job.script.name == "sb3.py", flags))
    for sides in equal.values():
        assert sorted(peer for peer, _ in sides) == [False, True]
        assert sides[0][1] == sides[1][1]
    for name in ("a2c", "trpo", "ppo", "ppo_continuous", "ppo_images"):
        assert any(name == other for _, other, *_ in equal)


def test_the_sweep_makes_at_least_four_batches():
    plan = speed.make_plan(load_suite("speed"), Path("x"), [1])
    steps = {
        job.flags["num_envs"]: job.flags["total_timesteps"]
        for part, job in plan
        if part == "num_envs" and job.algorithm == "sb3-ppo-sizes"
    }
    assert list(steps) == [1, 2, 4, 8, 16, 32, 64, 128, 256]
    assert (steps[1], steps[16], steps[32], steps[256]) == (8192, 8192, 16384, 4 * 128 * 256)


def test_contestants_take_turns_and_share_seeds(suite):
    plan = speed.make_plan(
        load_suite(str(suite(SUITE + SIZES.partition("ms]")[2]))), Path(), [7, 8, 9]
    )
    turns = [(job.algorithm, job.seed) for part, job in plan if part == "pairs"]
    assert turns == [("x", 7), ("sb3-x", 7), ("sb3-x", 8), ("x", 8), ("x", 9), ("sb3-x", 9)]
    turns = [(job.flags["num_envs"], job.algorithm) for part, job in plan if part == "num_envs"]
    first = [(n, name) for n in (1, 2) for name in ("x-sizes", "sb3-x-sizes")]
    assert turns[:4] == first
    assert turns[32:36] == first[::-1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (SUITE.replace("sb3-x =", "sb3-y ="), "^x has no partner on CartPole-v1: .* sb3-x$"),
        (SIZES.replace("sb3-x-", "sb3-y-"), "the suite lacks sb3-x-sizes"),
        (ELSEWHERE, "sb3-x has no partner on CartPole-v1: the suite lacks x"),
    ],
)  # fmt: skip
def test_suites_that_compare_nothing_are_refused(suite, text, says):
    with pytest.raises(BadInput, match=says):
        speed.make_plan(load_suite(str(suite(text))), Path("x"), [1])


# ==============================================================================================
# Resuming and refusing
# ==============================================================================================
def test_what_is_measured_is_not_measured_again(run):
    assert run() == 0
    assert run.started == [
        "pairs-2__CartPole-v1__x__1",
        "pairs-2__CartPole-v1__sb3-x__1",
        "pairs-2__CartPole-v1__sb3-x__2",
        "pairs-2__CartPole-v1__x__2",
    ]
    before = (run.out / "speed.csv").read_text()
    assert run() == 0
    assert run.started == []
    assert (run.out / "speed.csv").read_text() == before
    assert run(repeats=3) == 0
    assert len(run.started) == 2
    line = "| 3 | 200.0 [200.0-200.0] | 100.0 [100.0-100.0] | 2.00 [2.00-2.00] |"
    assert f"| CartPole-v1 | x | steps/s {line}" in report(run)
    assert run(SUITE, "--seed", 7, repeats=1) == 0  # other seeds are further repeats
    assert "| CartPole-v1 | x | steps/s | 4 |" in report(run)
    assert run(SUITE + SIZES.partition("ms]")[2], only="num_envs", repeats=1) == 0
    assert "| CartPole-v1 | x | steps/s | 4 |" in report(run)


def test_half_a_run_is_set_aside_and_a_failure_keeps_what_was_measured(run, capsys):
    def fail_at_the_second_repeat(job):
        if job.seed == 1:
            return leave_run(job)
        job.run_dir.mkdir()
        (job.directory / "log.txt").write_text("Traceback\nit broke\n")
        return "failed", "exit status 1"

    run.attempt = fail_at_the_second_repeat
    assert run() == 1
    output = capsys.readouterr().out
    assert "2 runs done, 0 had been done before, 2 failed" in output
    assert "failed: pairs-2__CartPole-v1__sb3-x__2: exit status 1" in output
    assert "    it broke" in output
    assert "| CartPole-v1 | x | steps/s | 1 | 200.0 | 100.0 | 2.00 |" in report(run)
    run.attempt = leave_run
    assert run() == 0
    assert len(run.started) == 2
    assert (run.out / "runs" / "pairs-2__CartPole-v1__sb3-x__2" / "superseded-1").is_dir()


def test_an_interruption_leaves_the_report_of_what_was_measured(run):
    def interrupt(job):
        if job.seed == 2:
            raise KeyboardInterrupt
        return leave_run(job)

    run.attempt = interrupt
    assert run() == 130
    assert "| CartPole-v1 | x | steps/s | 1 | 200.0 | 100.0 | 2.00 |" in report(run)


def test_other_scripts_flags_versions_and_machines_are_refused(
    run, tmp_path, monkeypatch, capsys
):
    script = tmp_path / "mine.py"
    script.write_text("")
    text = SUITE.replace("ppo.py", str(script))
    both = text + SIZES.replace("ppo.py", str(script)).partition("ms]")[2]
    assert run(both, "--seed", 3) == 0
    before = (run.out / "speed.csv").read_text()

    def refused(says: str, *words: object) -> None:
        assert run(*words, only="num_envs") == 2  # other parts and seeds enter the same report
        error = capsys.readouterr().err
        assert "was made otherwise" in error
        assert says in error
        assert "name another --dir" in error

    refused("flags: total_timesteps 1024 instead of 512", both.replace("512", "1024"))
    with monkeypatch.context() as patch:
        patch.setattr(speed, "cpu_model", lambda: "another processor")
        refused(f"on {files.read_json(next(run.out.rglob('job.json')))['cpu']};", both)
    with monkeypatch.context() as patch:
        patch.setattr(pool, "installed_version", lambda name: "0")
        refused("versions: python 0 instead of", both)
    script.write_text("# changed")
    refused(": script;", both)
    assert run.started == []
    assert (run.out / "speed.csv").read_text() == before


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("report.md", "mine"),
        ("speed.csv", "a,b\n1,2\n"),
        ("speed.csv", "part,env_id,contestant,repeat,seed,num_envs,quantity,value\n"),
    ],
)
def test_a_folder_of_something_else_is_left_alone(run, name, content, capsys):
    run.out.mkdir()
    (run.out / name).write_text(content)
    assert run() == 2
    assert "holds something else, or rows of which there are no runs" in capsys.readouterr().err
    assert [path.name for path in run.out.iterdir()] == [name]
    assert (run.out / name).read_text() == content


def test_rows_whose_runs_are_gone_are_not_lost(run, capsys):
    assert run() == 0
    shutil.rmtree(run.out / "runs" / "pairs-2__CartPole-v1__x__1")
    before = (run.out / "speed.csv").read_text()
    assert run() == 2
    assert "rows of which there are no runs" in capsys.readouterr().err
    assert (run.out / "speed.csv").read_text() == before


def test_a_file_is_no_folder(run, capsys):
    run.out.write_text("mine")
    assert run() == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert run.out.read_text() == "mine"


def test_a_folder_is_measured_in_once_at_a_time(run, capsys):
    assert run() == 0
    with pool.locked(run.out / "runs"):
        assert run(repeats=3) == 2
    assert "another invocation is measuring in" in capsys.readouterr().err
    assert run.started == []


# ==============================================================================================
# Tables
# ==============================================================================================
def test_the_sweep_from_runs_to_report(run):
    assert run(SIZES, only="num_envs") == 0
    sides = "200.0 [200.0-200.0] | 100.0 [100.0-100.0]"
    for n in (1, 2, 256):
        line = f"num_envs {n} | 2 | {sides} | 2.00 [2.00-2.00] |"
        assert f"| CartPole-v1 | x-sizes | {line}" in report(run)
    head = "| environment | script |  | n | ours | peer | ours / peer |"
    assert f"{head}\n{'| --- ' * 7}|\n" in report(run)


def test_ratios_are_taken_within_repeats_that_both_have():
    ours, peers = {1: 10.0, 2: 40.0, 3: 30.0, 5: 99.0}, {1: 10.0, 2: 10.0, 3: 10.0, 4: 1.0}
    rows = [row("x", seed, value) for seed, value in ours.items()]
    rows += [row("sb3-x", seed, value) for seed, value in peers.items()]
    assert speed.compare(rows, "pairs") == [[
        "CartPole-v1", "x", "steps/s", "3", "30.0 [10.0-40.0]", "10.0 [10.0-10.0]",
        "3.00 [1.00-4.00]",
    ]]  # fmt: skip
    assert speed.compare(rows, "num_envs") == []


def test_a_side_without_a_measurement_leaves_its_line_empty():
    assert speed.compare([row("x", 1, 5.0)], "pairs") == [
        ["CartPole-v1", "x", "steps/s", "0", "-", "-", "-"]
    ]


@pytest.mark.parametrize(
    ("values", "shown"), [([1.0, 2.0, 5.0, 4.0], "3.0 [1.0-5.0]"), ([2.0], "2.0"), ([], "-")]
)
def test_medians_with_their_range(values, shown):
    assert speed.spread(np.array(values)) == shown


# ==============================================================================================
# The report command and folders of `speed`
# ==============================================================================================
def test_report_takes_the_newest_folder_of_a_suite(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "RUNS", tmp_path)
    monkeypatch.setattr(
        "benchmark.report.write_report", lambda *words: taken.append(words[0]) or ([], [])
    )
    taken = []
    files = {"older": "grid.json", "newer": "grid.json", "speed": "speed.csv", "gpu": "gpu.csv"}
    for i, (name, file) in enumerate(files.items()):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).touch()
        os.utime(tmp_path / name, (i, i))
    assert program.report(program.parse_args(["report"])) == 0
    assert taken == [tmp_path / "newer"]
    shutil.rmtree(tmp_path / "older")
    shutil.rmtree(tmp_path / "newer")
    with pytest.raises(BadInput, match="there are no runs in"):
        program.report(program.parse_args(["report"]))


def test_report_refuses_a_folder_of_speed(tmp_path, capsys):
    (tmp_path / "speed.csv").touch()
    assert program.main(["report", str(tmp_path)]) == 2
    says = f"error: {tmp_path} is a folder of `speed`; its report is report.md in it\n"
    assert capsys.readouterr() == ("", says)


# ==============================================================================================
# Real processes
# ==============================================================================================
def test_interrupted_it_leaves_nothing_running_and_goes_on_later(suite, tmp_path):
    shutil.copy(ROOT / "tests" / "benchmark" / "fake_script.py", tmp_path / "ours.py")
    text = SUITE.replace("benchmark/peers/sb3.py", "ppo.py").replace(
        "ppo.py", str(tmp_path / "ours.py")
    )
    text = text.replace("num_envs = 2", 'behaviour = "wait"')
    words = ["--suite", str(suite(text)), "--dir", str(tmp_path / "out"), "--repeats", "1"]
    words = ["speed", *words, "--only", "pairs"]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", *words], cwd=ROOT, stderr=subprocess.PIPE, text=True
    )
    folder = tmp_path / "out" / "runs" / "pairs-0__CartPole-v1__x__1"
    try:
        wait_until((folder / "run" / "checkpoint.pt").exists)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=PATIENCE)
    finally:
        process.kill()
    assert process.returncode == 130, errors
    assert not is_alive(int((folder / "history.txt").read_text().split()[1]))
    (tmp_path / "out" / "runs" / "go").touch()
    assert program.main(words) == 0
    assert (folder / "superseded-1").is_dir()
    assert (folder / "history.txt").read_text().count("start") == 2


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--only", "pair"], "invalid choice: 'pair'"),
        (["--repeats", "0"], "not a positive whole number"),
    ],
)
def test_bad_input_is_one_line_and_status_2(tmp_path, words, says, capsys):
    assert program.main(["speed", "--dir", str(tmp_path / "out"), *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ")
    assert error.count("\n") == 1
    assert says in error
    assert not (tmp_path / "out").exists()
