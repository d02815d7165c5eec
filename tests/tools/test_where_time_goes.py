"""The clocks in a script, with seconds that the test makes up."""

from types import SimpleNamespace

import pytest

from tools import where_time_goes


class Env:
    """Its step takes 3 seconds, its reset 7."""

    def __init__(self, clock: list):
        self.clock = clock

    def step(self, action):
        self.clock[0] += 3
        return action

    def reset(self, seed):
        self.clock[0] += 7
        return seed


def make_script(clock: list) -> SimpleNamespace:
    """What the clocks need of a script; its logs take 100 and 1000 seconds."""

    class Run:
        def record_step(self, done):
            clock[0] += 100

        def record_iteration(self, losses):
            clock[0] += 1000

    return SimpleNamespace(make_env=lambda args: Env(clock), Run=Run)


def test_each_second_counts_once_and_until_the_last_log(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(where_time_goes, "perf_counter", lambda: clock[0])
    script = make_script(clock)
    seconds, run = where_time_goes.watch(script), script.Run()
    env = script.make_env(None)
    assert env.reset(seed=5) == 5
    for _ in range(2):  # two iterations of two steps
        for _ in range(2):
            clock[0] += 0.25  # the policy
            assert env.step(1) == 1
            run.record_step(False)
        clock[0] += 40  # the update
        run.record_iteration({})
    env.step(1)  # the evaluation
    assert seconds == pytest.approx({"environment": 7 + 4 * 3, "update": 2 * 40})
