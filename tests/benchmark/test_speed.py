"""python -m benchmark speed: the plan, the table that is resumed from, the report, and one
measurement of each kind."""

import importlib
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_runs import write_run
from harness import PATIENCE, ROOT, is_alive, wait_until

from benchmark import __main__ as program
from benchmark import measure, speed, speed_report
from benchmark.grid import BadInput, load_suite

SUITE = """
seeds = [1]
[environments.CartPole-v1]
total_timesteps = 512
[algorithms]
x = { script = "ppo.py", flags = { num_envs = 2 } }
sb3-x = { script = "benchmark/peers/sb3.py", flags = { num_envs = 2 } }
"""
BEST = (
    SUITE
    + 'x-best = { script = "ppo.py" }\nsb3-x-best = { script = "benchmark/peers/sb3.py" }\n'
)
SHARES = (
    SUITE.partition("x =")[0] + 'ppo-share = { script = "ppo.py", flags = { num_envs = 2 } }\n'
)
SIZES = SUITE.replace("x =", "ppo =")


@pytest.fixture
def suite(tmp_path):
    """Write a suite; return its path."""

    def write(text: str = SUITE) -> Path:
        (tmp_path / "suite.toml").write_text(text)
        return tmp_path / "suite.toml"

    return write


@pytest.fixture
def run(suite, tmp_path, monkeypatch):
    """Run `speed` on a suite with processes that only leave a summary; return the exit
    status."""
    started = []
    monkeypatch.setattr(
        speed, "attempt", lambda job, *_: started.append(job.name) or leave_summary(job)
    )

    def one(
        text: str = SUITE, only: tuple = ("pairs",), repeats: int = 2, seed: int = 0
    ) -> int:
        started.clear()
        return speed.speed(
            load_suite(str(suite(text))), tmp_path / "out", seed, repeats, list(only)
        )

    one.started, one.out = started, tmp_path / "out"
    return one


def leave_summary(job) -> tuple[str, str]:
    """What a run that took no time leaves: 200 steps per second, the peer 100."""
    sps = 100.0 if job.algorithm.startswith("sb3") else 200.0
    if job.algorithm.endswith("-best"):
        write_run(
            job.run_dir,
            "ppo",
            job.env_id,
            job.seed,
            final_return=500.0 if sps == 200 else 100.0,
        )
    else:
        job.run_dir.mkdir()
        (job.run_dir / "summary.json").write_text(json.dumps({"sps": sps}))
    return "done", ""


def row(
    part,
    contestant,
    repeat,
    value,
    quantity="steps_per_second",
    env_id="CartPole-v1",
    num_envs=4,
) -> dict:
    """A row of speed.csv."""
    about = {
        "seed": str(repeat),
        "unit": "",
        "script_sha256": "",
        "flags": "",
        "system": "a machine",
        "load": "1",
    }
    return about | {
        "part": part,
        "env_id": env_id,
        "contestant": contestant,
        "repeat": str(repeat),
        "num_envs": str(num_envs),
        "quantity": quantity,
        "value": str(value),
    }


# ==============================================================================================
# The plan
# ==============================================================================================
def test_the_shipped_suite_pairs_every_contestant_at_equal_flags():
    plan = speed.make_plan(load_suite("speed"), Path("x"), 0, 2)
    assert [part for part in speed.PARTS if any(one.part == part for one in plan)] == list(
        speed.PARTS
    )
    pairs = {one.job.algorithm: one.job for one in plan if one.part == "pairs"}
    assert len(pairs) == 8
    for name in ("a2c", "trpo", "ppo", "ppo_continuous"):
        assert pairs[name].flags == {
            k: v for k, v in pairs[f"sb3-{name}"].flags.items() if k != "algo"
        }
    shares = [one.job.script.stem for one in plan if one.part == "shares" and one.repeat == 1]
    scripts = [path for path in ROOT.glob("*.py") if "def make_env(" in path.read_text()]
    assert sorted(shares) == sorted(path.stem for path in scripts), "those with environments"
    sizes = [
        one.job.flags
        for one in plan
        if one.part == "num_envs" and one.job.algorithm == "sb3-ppo"
    ]
    assert (sizes[0]["total_timesteps"], sizes[8]["total_timesteps"]) == (8192, 4 * 128 * 256)
    names = [one.job.directory.name for one in plan]
    assert len(set(names)) == len(names)


def test_the_default_seeds_are_those_that_results_are_reported_on():
    args = program.parse_args(["speed"])
    plan = speed.make_plan(load_suite("speed"), Path("x"), args.seed, args.repeats)
    assert (
        sorted({one.job.seed for one in plan})
        == load_suite("speed")["seeds"]
        == [1, 2, 3, 4, 5]
    )


def test_contestants_take_turns_and_share_seeds(suite):
    plan = speed.make_plan(load_suite(str(suite())), Path("x"), 7, 3)
    turns = [(one.job.algorithm, one.job.seed) for one in plan if one.part == "pairs"]
    assert turns == [("x", 8), ("sb3-x", 8), ("sb3-x", 9), ("x", 9), ("x", 10), ("sb3-x", 10)]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (
            SUITE.replace("sb3-x =", "sb3-y ="),
            "x has no partner on CartPole-v1: the suite lacks sb3-x",
        ),
        (BEST.replace("\nx-best", "\ny-best"), "y-best has no partner"),
        (BEST.replace("CartPole", "Pendulum"), "no threshold for Pendulum-v1"),
    ],
)
def test_suites_that_compare_nothing_are_refused(suite, text, says):
    with pytest.raises(BadInput, match=says):
        speed.make_plan(load_suite(str(suite(text))), Path("x"), 0, 1)


# ==============================================================================================
# speed.csv: resuming and refusing
# ==============================================================================================
def test_what_is_measured_is_not_measured_again(run):
    assert run() == 0
    assert len(run.started) == 4
    before = (run.out / "speed.csv").read_text()
    assert run() == 0
    assert run.started == []
    assert (run.out / "speed.csv").read_text() == before
    assert run(repeats=3) == 0
    assert len(run.started) == 2
    assert (
        "| CartPole-v1 | x | 3 | 200.0 [200.0-200.0] | 100.0 [100.0-100.0] | 2.00 [2.00-2.00] |"
        in (run.out / "report.md").read_text()
    )


def test_half_a_run_is_set_aside_and_a_failure_keeps_what_was_measured(
    run, monkeypatch, capsys
):
    def fail_at_the_second_repeat(job, *_):
        if job.seed == 1:
            return leave_summary(job)
        job.run_dir.mkdir()
        (job.directory / "log.txt").write_text("Traceback\nit broke\n")
        return "failed", "exit status 1"

    with monkeypatch.context() as patch:
        patch.setattr(speed, "attempt", fail_at_the_second_repeat)
        assert run() == 1
    error = capsys.readouterr().err
    assert "pairs__CartPole-v1__sb3-x__2__2: exit status 1" in error
    assert "    it broke" in error
    assert (
        "| CartPole-v1 | x | 1 | 200.0 | 100.0 | 2.00 |" in (run.out / "report.md").read_text()
    )
    assert run() == 0
    assert len(run.started) == 2
    assert (run.out / "runs" / "pairs__CartPole-v1__sb3-x__2__2" / "superseded-1").is_dir()


def test_an_interruption_leaves_the_report_of_what_was_measured(run, monkeypatch):
    def interrupt_at(repeat):
        def attempt(job, *_):
            if job.seed == repeat:
                raise KeyboardInterrupt
            return leave_summary(job)

        return attempt

    monkeypatch.setattr(speed, "attempt", interrupt_at(1))
    with pytest.raises(KeyboardInterrupt):
        run()
    assert not (run.out / "report.md").exists()  # there is nothing to report on
    monkeypatch.setattr(speed, "attempt", interrupt_at(2))
    with pytest.raises(KeyboardInterrupt):
        run()
    assert (
        "| CartPole-v1 | x | 1 | 200.0 | 100.0 | 2.00 |" in (run.out / "report.md").read_text()
    )


def test_other_scripts_flags_seeds_and_machines_are_refused(run, tmp_path, monkeypatch):
    script = tmp_path / "mine.py"
    script.write_text("")
    text = SUITE.replace("ppo.py", str(script))
    assert run(text) == 0
    before = (run.out / "speed.csv").read_text()
    with pytest.raises(BadInput, match="measured with another seed; name another --dir"):
        run(text, seed=5)
    with pytest.raises(BadInput, match="measured with other flags; name"):
        run(text.replace("512", "1024"))
    with pytest.raises(BadInput, match="which these flags would not measure"):
        run(text.replace("x =", "y ="))
    with monkeypatch.context() as patch:
        patch.setattr(speed, "system", lambda: "another")
        with pytest.raises(BadInput, match="measured with another machine or other versions"):
            run(text)
    script.write_text("# changed")
    with pytest.raises(BadInput, match="measured with another script"):
        run(text, only=["environments"])  # other parts enter the same report
    assert run.started == []
    assert (run.out / "speed.csv").read_text() == before


def test_a_folder_of_something_else_is_left_alone(run):
    run.out.mkdir()
    (run.out / "report.md").write_text("mine")
    with pytest.raises(BadInput, match="is not empty and has no"):
        run()
    (run.out / "speed.csv").write_text("a,b\n1,2\n")
    with pytest.raises(BadInput, match="no table of this command"):
        run()
    assert (run.out / "report.md").read_text() == "mine"


def test_a_folder_is_measured_in_once_at_a_time(run):
    with (
        speed.locked(run.out),
        pytest.raises(BadInput, match="another invocation is measuring"),
    ):
        run()


def test_an_environment_that_is_not_installed_does_not_stop_the_rest(run, monkeypatch):
    tried = []

    def refuse_lander(job, *_):
        tried.append(job.name)
        if job.env_id != "LunarLander-v3":
            return leave_summary(job)
        (job.directory / "log.txt").write_text(
            "error: LunarLander-v3 cannot be made: Box2D is not installed\n"
        )
        return "failed", "exit status 2"

    monkeypatch.setattr(speed, "attempt", refuse_lander)
    assert run(only=["environments"]) == 0
    text = (run.out / "report.md").read_text()
    assert "| LunarLander-v3 | 0 | could not be made | could not be made |" in text
    assert "| HalfCheetah-v5 | 2 | 200.0 [200.0-200.0] |" in text
    tried.clear()
    assert run(only=["environments"]) == 0
    assert tried == [
        "environments__LunarLander-v3__environment__1__1"
    ]  # it may have been installed meanwhile


def test_threshold_and_num_envs_from_runs_to_report(run, monkeypatch):
    monkeypatch.setattr(speed, "NUM_ENVS", (1, 2))
    assert run(BEST, ["threshold"]) == 0
    text = (run.out / "report.md").read_text()
    # returns rise to 500 at episode 100 of 200, in 10 s and 10,000 steps: the mean of 100
    # passes 475 at episode 168
    assert (
        "| CartPole-v1 (475) | x-best | 2 of 2 | 8.4 [8.4-8.4] | 8,400 [8,400-8,400] | - | - |"
        in text
    )
    assert (
        "| CartPole-v1 (475) | sb3-x-best | 0 of 2 | never [never-never] "
        "| never [never-never] |  |  |" in text
    )
    shutil.rmtree(run.out)
    assert run(SIZES, ["num_envs"]) == 0
    assert {path.name for path in run.out.iterdir()} >= {
        "num_envs.png",
        "num_envs.svg",
        "report.md",
    }
    assert (
        "| 2 | 2 | 200.0 [200.0-200.0] | 100.0 [100.0-100.0] | 200.0 [200.0-200.0] |"
        in (run.out / "report.md").read_text()
    )


# ==============================================================================================
# Tables
# ==============================================================================================
def test_ratios_are_taken_within_repeats_that_both_have():
    ours, peers = {1: 10.0, 2: 40.0, 3: 30.0, 4: 99.0}, {1: 10.0, 2: 10.0, 3: 10.0}
    rows = [row("pairs", "x", i, value) for i, value in ours.items()]
    rows += [row("pairs", "sb3-x", i, value) for i, value in peers.items()]
    (cells,) = speed_report.pairs_table(rows).rows
    assert cells == [
        "CartPole-v1",
        "x",
        "3",
        "30.0 [10.0-40.0]",
        "10.0 [10.0-10.0]",
        "3.00 [1.00-4.00]",
    ]


def test_median_with_never():
    assert speed_report.median([1.0, 2.0, 5.0, 4.0]) == 3.0
    assert speed_report.median([1.0, 2.0, 5.0, math.inf]) == 2.0
    assert speed_report.median([1.0, math.inf, math.inf]) == math.inf
    assert speed_report.spread([1.0, 2.0, math.inf]) == "2.0 [1.0-never]"
    assert speed_report.spread([2.0]) == "2.0"


def test_threshold_ratios_are_of_the_medians():
    rows = []
    for name, times in {"x-best": (2.0, 4.0, 6.0), "sb3-x-best": (8.0, 4.0, "never")}.items():
        for i, seconds in enumerate(times, start=1):
            rows.append(
                row("threshold", name, i, seconds, "seconds_to_threshold", num_envs=i % 2)
            )
            rows.append(row("threshold", name, i, 1000, "steps_to_threshold", num_envs=i % 2))
    ours, peer = speed_report.threshold_table(rows).rows
    assert ours[1:4] + ours[5:] == ["x-best", "3 of 3", "4.0 [2.0-6.0]", "0.50", "1.00"]
    assert peer[1:4] + peer[5:] == ["sb3-x-best", "2 of 3", "8.0 [4.0-never]", "", ""]


def test_lines_say_how_many_repeats_each_cell_has():
    assert speed_report.repeats([[], []]) == "0"
    assert speed_report.repeats([[1.0, 2.0], [], [3.0, 4.0]]) == "2"
    assert speed_report.repeats([[1.0, 2.0], [], [3.0]]) == "2 / 0 / 1"
    rows = [
        row("environments", "environment", i, 5, num_envs=n)
        for i, n in ((1, 1), (1, 8), (2, 1))
    ]
    assert speed_report.environments_table(rows, set()).rows == [
        ["CartPole-v1", "2 / 1", "5.0 [5.0-5.0]", "5.0"]
    ]


def test_captions_name_the_flags_that_stay_fixed():
    rows = [
        {"contestant": "sb3-ppo", "flags": "--num-steps 9"},
        {"contestant": "ppo", "flags": "--num-steps 128"},
    ]
    assert speed_report.flag(rows, "ppo", "num_steps") == "num_steps (128)"
    assert speed_report.flag(rows, "ppo", "num_minibatches") == "num_minibatches"


def test_shares_in_percent():
    rows = [row("shares", "ppo-share", 1, 1234, num_envs="")]
    rows += [
        row("shares", "ppo-share", 1, 0.2, name, num_envs="") for name in speed_report.SHARES
    ]
    assert speed_report.shares_table(rows).rows == [
        ["CartPole-v1", "ppo", "1", *["20%"] * 5, "1,234"]
    ]


# ==============================================================================================
# Clocks
# ==============================================================================================
def test_each_second_of_training_is_counted_once(tmp_path, monkeypatch):
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(measure, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def spend(seconds):
        clock.now += seconds

    class Run:
        def start(self):
            script.make_env(None).reset()  # a trial, before the clock starts
            self.began = clock.now
            self.save()

        def save(self):
            spend(10)

        def record_step(self):
            spend(1)

        def record_iteration(self):
            spend(2)
            self.save()

    def train(args):
        env, actor, run = script.make_env(args), script.Actor(), Run()
        run.start()  # the first checkpoint, 10
        env.reset()  # 100
        actor.sample()  # 20
        env.step()  # 200
        spend(5)  # rest
        run.record_step()  # 1
        spend(40)  # the update
        run.record_iteration()  # 12
        return script.evaluate(run)

    def evaluate(run):  # not in wall_seconds
        seconds = clock.now - run.began
        run.save()
        script.make_env(None).step()
        return {"wall_seconds": seconds}

    def make_env(args):
        return SimpleNamespace(step=lambda: spend(200), reset=lambda: spend(100))

    actor = type("Actor", (), {"sample": lambda self: spend(20)})
    script = SimpleNamespace(
        make_env=make_env, evaluate=evaluate, train=train, Actor=actor, Run=Run
    )
    measure.shares(script, SimpleNamespace(run_dir=tmp_path))
    shares = json.loads((tmp_path / "shares.json").read_text())
    total = 10 + 100 + 20 + 200 + 5 + 1 + 40 + 12
    seconds = {name: round(share * total, 6) for name, share in shares.items()}
    assert seconds == {"environment": 300, "policy": 20, "update": 40, "logging": 23, "rest": 5}


# ==============================================================================================
# The report command and folders of `speed`
# ==============================================================================================
def test_report_takes_the_newest_folder_that_is_not_of_speed(tmp_path, monkeypatch):
    monkeypatch.setattr(program, "RUNS", tmp_path)
    for i, name in enumerate(("older", "newer", "speed")):
        write_run(tmp_path / name / "run", "ppo", "CartPole-v1", 1)
        if name == "speed":
            (tmp_path / name / "speed.csv").touch()
        os.utime(tmp_path / name, (i, i))
    assert program.report(program.parse_args(["report"])) == 0
    assert [path.parent.name for path in tmp_path.glob("*/report")] == ["newer"]
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
def test_the_command_measures_where_the_time_goes(suite, tmp_path):
    words = ["--suite", str(suite(SHARES)), "--dir", str(tmp_path / "out"), "--repeats", "1"]
    assert program.main(["speed", *words, "--only", "shares"]) == 0
    rows = speed.load_rows(tmp_path / "out" / "speed.csv")
    values = {one["quantity"]: float(one["value"]) for one in rows}
    assert set(values) == {"steps_per_second", *speed_report.SHARES}
    assert all(value > 0 for value in values.values())
    assert sum(values[name] for name in speed_report.SHARES) == pytest.approx(1, abs=1e-4)
    assert not any(
        str(tmp_path) in text or str(ROOT) in text for one in rows for text in one.values()
    )
    assert "| CartPole-v1 | ppo | 1 |" in (tmp_path / "out" / "report.md").read_text()


def test_bare_environments_are_stepped_as_often_as_asked(tmp_path):
    words = [
        "bare",
        "ppo_continuous.py",
        "--env-id",
        "Pendulum-v1",
        "--num-envs",
        "2",
        "--total-timesteps",
        "500",
    ]
    words = [sys.executable, "benchmark/measure.py", *words, "--run-dir", tmp_path / "run"]
    subprocess.run(words, cwd=ROOT, check=True, timeout=PATIENCE)
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["global_step"] == 500
    assert summary["sps"] == pytest.approx(500 / summary["wall_seconds"])


def test_interrupted_it_leaves_nothing_running_and_goes_on_later(suite, tmp_path):
    shutil.copy(ROOT / "tests" / "benchmark" / "fake_script.py", tmp_path / "ours.py")
    text = SUITE.replace("benchmark/peers/sb3.py", "ppo.py").replace(
        "ppo.py", str(tmp_path / "ours.py")
    )
    text = text.replace("num_envs = 2", 'behaviour = "wait"')
    words = ["--suite", str(suite(text)), "--dir", str(tmp_path / "out"), "--repeats", "1"]
    words = ["speed", *words, "--only", "pairs"]
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmark", *words],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        text=True,
    )
    folder = tmp_path / "out" / "runs" / "pairs__CartPole-v1__x__default__1"
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
        (["--only", "pair"], "did you mean pairs?"),
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


# ==============================================================================================
# The peer's clip range
# ==============================================================================================
@pytest.fixture(scope="module")
def sb3():
    """The peers' script, imported where it is needed: its library takes seconds."""
    return importlib.import_module("benchmark.peers.sb3")


def test_peers_anneal_the_clip_range(sb3):
    clip_range = sb3.library_arguments(sb3.Args(algo="ppo", clip_coef=0.2, anneal_clip=True))[
        "clip_range"
    ]
    assert [clip_range(left) for left in (1.0, 0.5, 0.0)] == [0.2, 0.1, 0.0]


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ({"algo": "a2c"}, "--anneal-clip has no effect on a2c; leave it out"),
        ({"algo": "trpo"}, "--anneal-clip has no effect on trpo; leave it out"),
        ({"algo": "ppo"}, "--anneal-clip needs --clip-coef"),
    ],
)
def test_peers_refuse_to_anneal_no_clip_range(sb3, flags, says, capsys):
    with pytest.raises(SystemExit) as exit_info:
        sb3.library_arguments(sb3.Args(**flags, anneal_clip=True))
    assert (exit_info.value.code, capsys.readouterr().err) == (2, f"error: {says}\n")
