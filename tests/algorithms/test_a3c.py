"""A3C: with one worker it is A2C; and its processes, whichever of them dies and how.

The other tests run a3c.py with its workers in lockstep within the test's process (lockstep.py).
Here, where programs run, and in test_programs.py and test_environments.py, they are processes.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import lockstep
import numpy as np
import pytest
import torch
from helpers import (
    PATIENCE,
    ROOT,
    checkpoint_of,
    command,
    copied,
    environment,
    module,
    run,
    scalars,
    summary_of,
    train,
)


@pytest.mark.parametrize(
    ("name", "flags"),
    [
        ("CartPole-v1", {}),
        ("Tape-v0", {"norm_adv": True, "reward_scale": 0.5, "gae_lambda": 0.9}),
        ("Tape-v0", {"anneal_lr": False, "ent_coef": 0.05, "rms_alpha": 0.9, "rms_eps": 1e-3}),
    ],
)
def test_one_worker_is_a2c_with_one_environment(name, flags, tmp_path, monkeypatch):
    """To the bit: weights, running mean, episodes and losses, where A2C's noise begins where
    the worker's does. The first, empty step that makes the running mean counts as one."""
    usual = {"total_timesteps": 1000, "num_steps": 5, "log_interval": 1}
    flags = usual | flags | {"env_id": name}
    a2c = module("a2c")
    start = a2c.Run.start

    def with_the_workers_noise(run, *args):
        start(run, *args)
        seeds = np.random.SeedSequence([run.args.seed, 0]).generate_state(1)
        torch.manual_seed(int(seeds[0]) >> 1)

    monkeypatch.setattr(a2c.Run, "start", with_the_workers_noise)
    _, expected = train("a2c", tmp_path / "a2c", num_envs=1, **flags)
    _, found = train("a3c", tmp_path / "a3c", num_workers=1, **flags)
    for network in ("actor", "critic"):
        for key, value in expected[network].items():
            assert torch.equal(found[network][key], value), key
    ours, theirs = (x["optimizer"]["state"][0] for x in (found, expected))
    assert torch.equal(ours["square_avg"], theirs["square_avg"])
    assert ours["step"] == theirs["step"] + 1 == 201
    assert found["counters"][:2] == expected["counters"][:2]
    assert found["counters"][3] == expected["counters"][3]
    ours, theirs = (scalars(tmp_path / script) for script in ("a3c", "a2c"))
    tags = {tag for tag in theirs if not tag.endswith("SPS")}
    assert set(ours) - set(theirs) == {"losses/staleness"}
    for tag in tags:
        if tag.startswith("losses"):
            assert [e.step for e in ours[tag]] == [e.step for e in theirs[tag]]
        assert [e.value for e in ours[tag]] == [e.value for e in theirs[tag]], tag


def counters(monkeypatch) -> list:
    """The shared counters of runs, to which each adds its own, those of steps and updates."""
    values, get_context = [], lockstep.get_context

    def noted_context(method):
        context = get_context(method)
        value = context.Value
        context.Value = lambda *args: (values.append(value(*args)), values[-1])[1]
        return context

    monkeypatch.setattr(module("a3c").multiprocessing, "get_context", noted_context)
    return values


def test_staleness_is_the_number_of_foreign_updates_since_the_weights_were_read(
    tmp_path, monkeypatch
):
    """Two come while the segment is played, none between one's own."""
    a3c, values, calls = module("a3c"), counters(monkeypatch), []
    sample = a3c.Actor.sample

    def others_update(actor, obs):
        calls.append(1)
        if len(calls) in (2, 3, 20):  # steps 2 and 3 of the first segment, 4 of the second
            values[1].value += 1
        return sample(actor, obs)

    monkeypatch.setattr(a3c.Actor, "sample", others_update)
    flags = {"env_id": "Tape-v0", "total_timesteps": 64, "log_interval": 1}
    train("a3c", tmp_path / "run", **flags)
    staleness = scalars(tmp_path / "run")["losses/staleness"]
    assert [event.value for event in staleness] == [2, 1, 0, 0]
    assert values[1].value == 4 + 3


def test_a_stale_gradient_steps_the_weights_as_others_have_moved_them(tmp_path, monkeypatch):
    """One update, during whose segment another worker moves the shared weights: what it did
    stays, and to it comes the step that the gradient at the copy makes without it. No lock of a
    counter is held over it."""
    a3c, shared, values, calls = module("a3c"), [], counters(monkeypatch), []
    start, sample, step = a3c.Run.start, a3c.Actor.sample, torch.optim.RMSprop.step
    generator = torch.Generator().manual_seed(0)
    flags = {"env_id": "Tape-v0", "num_workers": 1, "total_timesteps": 16}

    def note(run, state, total_steps):
        start(run, state, total_steps)
        shared.extend([*state["actor"].parameters(), *state["critic"].parameters()])

    def others_update(actor, obs):
        calls.append(1)
        if len(calls) == 5:
            with torch.no_grad():
                for p, move in zip(shared, moves, strict=True):
                    p.add_(move)
        return sample(actor, obs)

    def unlocked(*args):
        assert not any(value.lock.locked() for value in values)
        return step(*args)

    monkeypatch.setattr(a3c.Run, "start", note)
    _, alone = train("a3c", tmp_path / "alone", **flags)
    moves = [torch.randn(p.shape, generator=generator) for p in shared]
    shared.clear()
    monkeypatch.setattr(a3c.Actor, "sample", others_update)
    monkeypatch.setattr(torch.optim.RMSprop, "step", unlocked)
    _, moved = train("a3c", tmp_path / "moved", **flags)
    assert len(values) == 2 * 2
    found, expected = (
        [*run["actor"].values(), *run["critic"].values()] for run in (moved, alone)
    )
    for ours, theirs, move in zip(found, expected, moves, strict=True):
        torch.testing.assert_close(ours, theirs + move, rtol=0, atol=1e-6)


def test_the_counters_are_never_touched_without_their_lock(tmp_path, monkeypatch):
    """Else two workers could play one segment, or count two updates as one. All is under the
    lock but one look at the updates for each segment, before it begins."""
    a3c, looks = module("a3c"), []

    class Guarded:
        def __init__(self, value, lock):
            self.number, self.lock = value, lock

        def get_lock(self):
            return self.lock

        @property
        def value(self):
            looks.append((self, self.lock.locked()))
            return self.number

        @value.setter
        def value(self, number):
            assert self.lock.locked()
            self.number = number

    get_context = lockstep.get_context

    def guarded(method):
        context = get_context(method)
        lock = threading.Lock
        context.Value = lambda _, value: counters.append(Guarded(value, lock())) or counters[-1]
        return context

    counters = []
    monkeypatch.setattr(a3c.multiprocessing, "get_context", guarded)
    train("a3c", tmp_path / "run", env_id="Tape-v0", total_timesteps=6 * 16, num_workers=3)
    begun, updates = counters
    assert all(locked for counter, locked in looks if counter is begun)
    assert sum(not locked for _, locked in looks) == updates.number == 6
    assert begun.number == (6 + 3) * 16


def test_steps_are_given_out_once(tmp_path):
    """Three workers, seven segments: exactly as many as asked for, and each at its own rate."""
    flags = {"env_id": "Tape-v0", "total_timesteps": 7 * 16 + 3, "log_interval": 1}
    summary, _ = train("a3c", tmp_path / "run", num_workers=3, **flags)
    assert summary["global_step"] == 7 * 16
    rates = [event.value for event in scalars(tmp_path / "run")["losses/learning_rate"]]
    assert rates == pytest.approx([7e-4 * (1 - k / 7) for k in range(7)])


def test_workers_have_noise_and_episodes_of_their_own(tmp_path, monkeypatch):
    """Each seeds torch and its environment with its own number, a resumed run with others."""
    a3c, seeds = module("a3c"), []
    manual_seed = torch.manual_seed
    monkeypatch.setattr(torch, "manual_seed", lambda n: (seeds.append(n), manual_seed(n))[1])
    train("a3c", tmp_path / "run", env_id="Tape-v0", total_timesteps=96, num_workers=3)
    expected = (np.random.SeedSequence([1, 0]).generate_state(3) >> 1).tolist()
    assert seeds == [1, *expected]
    a3c.train(a3c.Args(resume=tmp_path / "run", total_timesteps=192))
    expected = (np.random.SeedSequence([1, 96]).generate_state(3) >> 1).tolist()
    assert seeds[4:] == [1, 97, *expected]


@pytest.mark.parametrize("kind", ["reward", "obs"])
def test_a_gradient_that_is_not_finite_does_not_reach_the_shared_weights(
    kind, tmp_path, monkeypatch
):
    """Train() sees the segment later than the worker, and may save before it does."""
    a3c, envs, shared = module("a3c"), sys.modules["envs"], []
    start = a3c.Run.start

    def note(run, state, total_steps):
        start(run, state, total_steps)
        shared.append(state)

    monkeypatch.setattr(a3c.Run, "start", note)
    monkeypatch.setattr(envs.Faulty, "steps", 0)
    flags = {"env_id": "Faulty-v0", "env_kwargs": f'{{"kind": "{kind}", "at": 42}}'}
    with pytest.raises(FloatingPointError, match="step 42"):
        train("a3c", tmp_path / "run", total_timesteps=640, **flags)
    for network in ("actor", "critic"):
        for value in copied(shared[0][network].state_dict()).values():
            assert torch.isfinite(value).all()


def test_a_worker_that_dies_in_mid_message_is_said_to_have_died(tmp_path, monkeypatch):
    """What is left of the message makes recv raise another error than at the end of a pipe."""
    a3c, calls = module("a3c"), []
    sample, recv = a3c.Actor.sample, lockstep.Reader.recv

    def dies(actor, obs):
        calls.append(1)
        if len(calls) == 20:
            raise ValueError("what it died of")
        return sample(actor, obs)

    def cut(reader):
        if reader.message is None:
            raise OSError("got end of file during message")
        return recv(reader)

    monkeypatch.setattr(a3c.Actor, "sample", dies)
    monkeypatch.setattr(lockstep.Reader, "recv", cut)
    died = torch.multiprocessing.ProcessRaisedException
    with pytest.raises(died, match="what it died of"):
        train("a3c", tmp_path / "run", env_id="Tape-v0", total_timesteps=64)


def test_a_worker_that_ends_too_early_is_an_interrupt(tmp_path, monkeypatch):
    """Torch takes a worker's KeyboardInterrupt for a proper end; the run must not pass for one
    that has made its steps."""
    a3c, calls = module("a3c"), []
    sample = a3c.Actor.sample

    def interrupted(actor, obs):
        calls.append(1)
        if len(calls) == 20:
            raise lockstep.Stopped
        return sample(actor, obs)

    monkeypatch.setattr(a3c.Actor, "sample", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train("a3c", tmp_path / "run", env_id="Tape-v0", total_timesteps=64)
    assert not (tmp_path / "run" / "summary.json").exists()


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_other_devices_are_refused_even_where_they_are(device, tmp_path, monkeypatch):
    monkeypatch.setattr(getattr(torch, device), "is_available", lambda: True)
    a3c = module("a3c")
    with pytest.raises(a3c.BadInput, match="device must be cpu"):
        train("a3c", tmp_path / "run", device=device, total_timesteps=64)
    assert not (tmp_path / "run").exists()


def test_a_notebook_cell_is_refused_in_one_line(tmp_path, monkeypatch, capsys):
    """Pasted into one it only defines; its workers would have no code to import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["ipykernel_launcher.py", "-f", "kernel.json"])
    names = {"__name__": "__main__"}
    exec(compile((ROOT / "a3c.py").read_text(), "<cell>", "exec"), names)
    with pytest.raises(names["BadInput"], match="save this as a file") as refusal:
        names["train"](names["Args"](total_timesteps=64))
    assert "\n" not in str(refusal.value)
    assert capsys.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


# ---- Processes ----
def family(pid: int) -> dict[int, str]:
    """The living processes that `pid` has started, or that they have, and their commands."""
    listing = subprocess.run(
        ["ps", "-A", "-ww", "-o", "pid=,ppid=,stat=,command="],
        capture_output=True,
        text=True,
        check=True,
    )
    rows = [line.split(None, 3) for line in listing.stdout.splitlines()]
    rows = [row for row in rows if len(row) == 4 and not row[2].startswith("Z")]
    found, new = {}, {pid}
    while new:
        parents, new = new, set()
        for child, parent, _, words in rows:
            if int(parent) in parents and int(child) not in found:
                found[int(child)] = words
                new.add(int(child))
    return found


def workers(pid: int) -> list[int]:
    return [child for child, words in family(pid).items() if "spawn_main" in words]


def begun(
    session: list[int], run_dir: Path, reach: int = 1, **flags
) -> tuple[subprocess.Popen, list[int]]:
    """A program with two workers that has saved `reach` steps; and its workers."""
    usual = {"checkpoint_interval": 0.1, "num_steps": 16, "run_dir": run_dir}
    usual |= {"num_workers": 2, "total_timesteps": 10_000_000, "env_id": "CartPole-v1"}
    words = command("a3c", **usual | flags)
    pipes = {"stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(
        words, cwd=run_dir.parent, env=environment(), start_new_session=True, **pipes
    )
    session.append(process.pid)
    deadline = time.monotonic() + PATIENCE
    while True:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline, "no progress"
        saved = (run_dir / "checkpoint.pt").exists()
        if saved and checkpoint_of(run_dir)["counters"][0] >= reach:
            break
        time.sleep(0.05)
    found = workers(process.pid)
    deadline = time.monotonic() + PATIENCE
    while len(found) < 2 and time.monotonic() < deadline:
        found = workers(process.pid)
    assert len(found) == 2
    return process, found


def gone(pids: list[int]) -> None:
    """Wait until none of them lives."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        states = subprocess.run(
            ["ps", "-o", "stat=", "-p", ",".join(map(str, pids))],
            capture_output=True,
            text=True,
        )
        if all(state.startswith("Z") for state in states.stdout.split()):
            return
        time.sleep(0.1)
    raise AssertionError(f"of {pids}, {states.stdout} are left")


@pytest.fixture
def session():
    """Kills what a failed test would leave running: all of the session that it began."""
    leaders = []
    yield leaders
    for leader in leaders:
        with suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


def test_a_killed_worker_ends_the_run(tmp_path, session):
    """With the signal's name, status 1 and the hint; the other worker is not left."""
    process, pids = begun(session, tmp_path / "run")
    others = list(family(process.pid))
    os.kill(pids[0], signal.SIGKILL)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert "terminated with signal SIGKILL" in stderr
    assert stderr.strip().splitlines()[-1].startswith("resume with: python ")
    assert not (tmp_path / "run" / "summary.json").exists()
    gone(others)


def test_workers_do_not_outlive_a_killed_parent(tmp_path, session):
    process, _ = begun(session, tmp_path / "run")
    others = list(family(process.pid))
    process.kill()
    gone(others)
    process.communicate(timeout=PATIENCE)
    assert process.returncode == -signal.SIGKILL


def test_an_interrupt_stops_all_and_can_be_resumed(tmp_path, session):
    """Ctrl-C goes to all processes of a terminal: one word and the hint, status 130, nothing
    left. Resumed, the run ends after exactly the steps asked for."""
    run_dir = tmp_path / "run"
    process, _ = begun(session, run_dir)
    others = list(family(process.pid))
    os.killpg(process.pid, signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    error, hint = stderr.strip().splitlines()
    assert error == "stopped"
    assert hint.startswith("resume with: python ")
    assert not (run_dir / "summary.json").exists()
    gone(others)
    before = checkpoint_of(run_dir)
    reached = before["counters"][0]
    assert reached % 16 == 0
    result = run("a3c", cwd=tmp_path, resume=run_dir, total_timesteps=reached + 1600)
    assert result.returncode == 0, result.stderr
    assert f"resuming at step {reached} " in result.stdout
    assert summary_of(run_dir)["global_step"] == reached + 1600
    after = checkpoint_of(run_dir)
    mean, old = (x["optimizer"]["state"][0] for x in (after, before))
    assert mean["step"] > old["step"]
    assert not torch.equal(mean["square_avg"], old["square_avg"])
    assert any(not torch.equal(after["actor"][k], v) for k, v in before["actor"].items())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_in_a_step_that_does_not_end_are_ended_too(number, tmp_path, session):
    """An interrupt of train()'s process alone, as a failure there would be, or its kill, when
    each worker has sent its one segment."""
    flags = {"env_id": "envs:Faulty-v0", "env_kwargs": '{"kind": "hang", "at": 17}'}
    process, _ = begun(session, tmp_path / "run", reach=32, checkpoint_interval=0, **flags)
    others = list(family(process.pid))
    time.sleep(1)
    process.send_signal(number)
    gone(others)
    _, stderr = process.communicate(timeout=PATIENCE)
    assert process.returncode == {signal.SIGINT: 130, signal.SIGKILL: -9}[number]
    assert stderr.startswith("stopped") or number == signal.SIGKILL


@pytest.mark.parametrize("whom", ["all", "parent"])
def test_workers_close_their_environments_when_a_run_is_stopped(whom, tmp_path, session):
    """Ctrl-C, which all processes get, or an interrupt of train()'s process alone."""
    (tmp_path / "marks").mkdir()
    kwargs = f'{{"folder": "{tmp_path / "marks"}"}}'
    flags = {"env_id": "envs:Marked-v0", "env_kwargs": kwargs}
    process, _ = begun(session, tmp_path / "run", **flags)
    others = list(family(process.pid))
    assert len(list((tmp_path / "marks").iterdir())) == 2
    if whom == "all":
        os.killpg(process.pid, signal.SIGINT)
    else:
        process.send_signal(signal.SIGINT)
    _, stderr = process.communicate(timeout=PATIENCE)
    gone(others)
    assert process.returncode == 130, stderr
    assert list((tmp_path / "marks").iterdir()) == []


@pytest.mark.parametrize("words", [["study.py"], ["-"]])
def test_a_program_without_the_guard_is_told_of_it(words, tmp_path):
    """As a file, which each worker imports, or from standard input, which none can: one line
    on how to call train(), and no directories of the workers'."""
    shutil.copy(ROOT / "a3c.py", tmp_path / "mine.py")
    program = (
        "import sys; sys.path.insert(0, '.'); import mine\nmine.train(mine.Args(seed=3))\n"
    )
    (tmp_path / "study.py").write_text(program)
    result = subprocess.run(
        [sys.executable, *words], cwd=tmp_path, env=environment(), input=program,
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert result.returncode == 1
    *_, last = result.stderr.strip().splitlines()
    assert last.startswith("mine.BadInput: ")
    assert 'if __name__ == "__main__":' in last
    assert result.stderr.count("Traceback") == 1
    assert len(list(tmp_path.glob("runs/*"))) == (1 if words == ["study.py"] else 0)


def test_train_in_a_program_of_ones_own(tmp_path):
    """Imported from a copy, called under the guard as its docstring asks."""
    shutil.copy(ROOT / "a3c.py", tmp_path / "mine.py")
    (tmp_path / "study.py").write_text(
        "import mine\n"
        'if __name__ == "__main__":\n'
        '    args = mine.Args(run_dir="run", total_timesteps=320, eval_episodes=1)\n'
        '    print(mine.train(args)["global_step"])\n'
    )
    result = subprocess.run(
        [sys.executable, "study.py"], cwd=tmp_path, env=environment(),
        capture_output=True, text=True, timeout=PATIENCE,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[-1] == "320"
