"""Event files: what is read of them, whole and damaged."""

import numpy as np
from fake_runs import EVENT_FILE, write_events
from hypothesis import given, settings
from hypothesis import strategies as st
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import masked_crc32c
from torch.utils.tensorboard import SummaryWriter

from benchmark.events import EPISODES, masked_crc, read_log


@given(st.binary(min_size=1, max_size=40))
def test_checksum_is_tensorboards(data):
    assert masked_crc(data) == masked_crc32c(data)


def test_episodes_are_those_that_tensorboard_reads(tmp_path):
    def log(writer, steps):
        for step in steps:
            writer.add_scalar("charts/episodic_return", step / 3, step)
            writer.add_scalar("losses/value_loss", -1.0, step)
        writer.close()

    log(SummaryWriter(tmp_path), range(0, 100, 4))
    log(SummaryWriter(tmp_path, purge_step=51), range(55, 90, 5))  # as a resumed run does
    log, problems = read_log(tmp_path)
    steps, seconds, returns = log[EPISODES]
    theirs = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0})
    theirs.Reload()
    theirs = theirs.Scalars("charts/episodic_return")
    assert (
        steps.tolist()
        == [event.step for event in theirs]
        == [*range(0, 51, 4), *range(55, 90, 5)]
    )
    assert returns.tolist() == [event.value for event in theirs]
    assert (np.diff(seconds) >= 0).all()
    assert problems == []


def test_time_between_sessions_is_no_training_time(tmp_path):
    tag = "charts/episodic_return"
    write_events(
        tmp_path / "events.out.tfevents.1", 1000.0, [(tag, 10, 5.0, 1.0), (tag, 20, 9.0, 2.0)]
    )
    write_events(
        tmp_path / "events.out.tfevents.2", 5000.0, [(tag, 15, 3.0, 3.0)], purge_step=11
    )
    steps, seconds, returns = read_log(tmp_path)[0][EPISODES]
    assert (steps.tolist(), seconds.tolist(), returns.tolist()) == (
        [10, 15],
        [5.0, 8.0],
        [1.0, 3.0],
    )


def test_sessions_follow_each_other_by_their_checkpoints_though_the_clock_was_set_back(
    tmp_path,
):
    tag = "charts/episodic_return"
    for name, start, step, purge in (("a", 9000.0, 10, None), ("b", 5000.0, 20, 15)):
        scalars = [(tag, step, 2.0, step), (tag, step + 8, 3.0, -1.0)]
        write_events(tmp_path / f"events.out.tfevents.{name}", start, scalars, purge)
    last = tmp_path / "events.out.tfevents.c"
    write_events(last, 1000.0, [(tag, 30, 2.0, 30.0)], purge_step=25)
    steps, seconds, returns = read_log(tmp_path)[0][EPISODES]
    assert (steps.tolist(), returns.tolist()) == ([10, 20, 30], [10, 20, 30])
    assert seconds.tolist() == [2, 4, 6]


@settings(max_examples=60)
@given(st.data())
def test_damaged_event_files_yield_what_comes_before_the_damage(tmp_path_factory, data):
    directory = tmp_path_factory.mktemp("events")
    tag = "charts/episodic_return"
    write_events(
        directory / EVENT_FILE, 1000.0, [(tag, step, step, step) for step in range(1, 9)]
    )
    content = bytearray((directory / EVENT_FILE).read_bytes())
    at = data.draw(st.integers(40, len(content) - 1))
    cut = data.draw(st.booleans())
    if cut:
        del content[at:]
    else:
        content[at] ^= data.draw(st.integers(1, 255))
    (directory / EVENT_FILE).write_bytes(content)
    log, problems = read_log(directory)
    steps = log[EPISODES][0]
    assert steps.tolist() == list(range(1, len(steps) + 1))
    assert len(problems) == 1 or (cut and len(content) in (40, *record_ends(content)))
    assert len(steps) < 8


def record_ends(content: bytes) -> list[int]:
    """Where the whole records of an event file end."""
    ends, position = [], 0
    while position + 8 <= len(content):
        position += 16 + int.from_bytes(content[position : position + 8], "little")
        ends.append(position)
    return ends


def test_only_the_tag_of_the_episodes_counts(tmp_path):
    scalars = [
        ("charts/episodic_return", 1, 1.0, 5.0),
        ("charts/episodic_return_mean", 2, 2.0, 9.0),
    ]
    write_events(tmp_path / EVENT_FILE, 1000.0, scalars)
    assert read_log(tmp_path)[0][EPISODES][2].tolist() == [5.0]


def test_each_tag_has_its_own_entries_and_only_numbers_count(tmp_path):
    writer = SummaryWriter(tmp_path)
    for step in (8, 16):
        writer.add_scalar(EPISODES, step / 2, step)
        writer.add_scalar("losses/kl", step / 4, step)
        writer.add_scalar("losses/kl_to_old", step / 8, step)
    writer.add_text("notes", "losses/kl", 8)
    writer.add_histogram("losses/kl", np.arange(4), 24)
    writer.close()
    log, problems = read_log(tmp_path, ["losses/kl_to_old", "losses/kl", "none"])
    assert problems == []
    assert {tag: x[[0, 2]].tolist() for tag, x in log.items()} == {
        EPISODES: [[8, 16], [4, 8]],
        "losses/kl": [[8, 16], [2, 4]],
        "losses/kl_to_old": [[8, 16], [1, 2]],
        "none": [[], []],
    }


def test_a_resumed_run_disowns_what_it_logged_too(tmp_path):
    first = [(EPISODES, 8, 2.0, 0.0), ("losses/kl", 10, 3.0, 1.0), ("losses/kl", 20, 9.0, 2.0)]
    write_events(tmp_path / "events.out.tfevents.1", 1000.0, first)
    second = [("losses/kl", 16, 1.0, 3.0)]
    write_events(tmp_path / "events.out.tfevents.2", 5000.0, second, purge_step=11)
    log = read_log(tmp_path, ["losses/kl"])[0]["losses/kl"]
    assert log.tolist() == [[10, 16], [3, 3], [1, 3]]  # its episodes took 2 seconds
