"""Reads TensorBoard's event files: what a run logged, its episodes among it."""

import struct
from collections.abc import Sequence
from pathlib import Path

import google_crc32c
import numpy as np
from google.protobuf.message import DecodeError
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

EPISODES = "charts/episodic_return"


def masked_crc(data: bytes) -> int:
    """The checksum that event files carry: CRC-32C, turned and shifted."""
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def read_records(path: Path) -> tuple[list[bytes], str]:
    """The records of an event file up to the first bad one, and what is wrong there ("" where
    nothing is).

    A record is: length (uint64), checksum of it, data, checksum of the data, little-endian.
    Written here because TensorBoard's own reader ends at a damaged record without a word.
    """
    content, records, start = path.read_bytes(), [], 0
    while start < len(content):
        if start + 12 > len(content):
            return records, "truncated"
        length, checksum = struct.unpack_from("<QI", content, start)
        if checksum != masked_crc(content[start : start + 8]):
            return records, "corrupt"
        if start + 16 + length > len(content):
            return records, "truncated"
        data, checksum = struct.unpack_from(f"<{length}sI", content, start + 12)
        if checksum != masked_crc(data):
            return records, "corrupt"
        records.append(data)
        start += 16 + length
    return records, ""


def resumed_at(event: Event) -> int:
    """The step from which an event that starts a session disowns earlier ones; or else -1."""
    starts = event.HasField("session_log") and event.session_log.status == SessionLog.START
    return event.step if starts else -1


def read_log(
    directory: Path, tags: Sequence[str] = ()
) -> tuple[dict[str, np.ndarray], list[str]]:
    """What a run directory's event files hold of the episodes, which are EPISODES, and under
    other tags: tag -> steps, seconds and values, (3, entries); and problems.

    A resumed run has one file per session. Each new one says at its start which checkpoint it
    went on from, which gives their order, and disowns what the ones before it logged beyond.
    The seconds go on counting from the last episode before: time between sessions is no
    training time.
    """
    sessions, problems = [], []
    numbers = {tag: i for i, tag in enumerate(dict.fromkeys([EPISODES, *tags]))}
    words = [tag.encode() for tag in numbers]
    files = sorted(directory.glob("events.out.tfevents.*"))
    for number, path in enumerate(files, start=1):
        records, problem = read_records(path)
        if problem:  # named by its number: a file's name holds the name of the machine
            problems.append(f"event file {number} is {problem} after {len(records)} records")
        wanted = [record for record in records if any(word in record for word in words)]
        try:
            head = [Event.FromString(record) for record in records[:8]]
            events = [Event.FromString(record) for record in wanted]
        except DecodeError:
            problems.append(f"event file {number} holds a record that is no event")
            continue
        if records:
            purge = max(map(resumed_at, head))
            sessions.append((purge, head[0].wall_time, number, events))
    sessions.sort(key=lambda session: session[:3])  # by checkpoints: clocks may be set back
    entries = np.zeros((4, 0))  # steps, seconds, values, numbers of tags
    for purge, start, _, events in sessions:
        entries = entries[:, (entries[0] < purge) | (purge < 0)]
        episodes = entries[1, entries[3] == 0]
        before = episodes[-1] if len(episodes) else 0.0
        new = [
            (
                event.step,
                event.wall_time - start + before,
                value.simple_value,
                numbers[value.tag],
            )
            for event in events
            for value in event.summary.value
            if value.tag in numbers and value.HasField("simple_value")
        ]
        entries = np.hstack([entries, np.array(new, float).reshape(-1, 4).T])
    return {tag: entries[:3, entries[3] == i] for tag, i in numbers.items()}, problems
