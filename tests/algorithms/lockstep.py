"""a3c.py within one process: its workers as threads that take turns.

A worker plays one segment, updates, sends it, and waits until train() asks for the next message
of any worker. So everything has one order, what a test patches or notes is seen by the workers,
and nothing is imported again. Real processes are for the tests of programs (test_a3c.py).
"""

import threading
import traceback
from itertools import cycle
from types import SimpleNamespace

from torch import multiprocessing as torch_multiprocessing


class Stopped(BaseException):
    """Ends a thread where a process would be killed."""


class Value(SimpleNamespace):
    def get_lock(self) -> threading.Lock:
        return self.lock


class Reader:
    """train()'s end of a pipe; the worker has the Writer."""

    def __init__(self):
        self.message, self.open, self.writer = None, True, Writer(self)
        self.turn, self.answer = threading.Semaphore(0), threading.Semaphore(0)

    def recv(self) -> tuple:
        if self.message is None:
            raise EOFError
        return self.message

    def close(self) -> None:
        self.open = False
        self.turn.release()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


class Writer:
    def __init__(self, reader: Reader):
        self.reader = reader

    def send(self, message: tuple) -> None:
        self.reader.message = message
        self.reader.answer.release()
        self.wait_for_turn()

    def wait_for_turn(self) -> None:
        self.reader.turn.acquire()
        if not self.reader.open:
            raise Stopped

    def close(self) -> None:
        """It is one object where processes have a copy each: work() ends it."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


class Worker:
    """What torch.multiprocessing.spawn starts for one rank."""

    def __init__(self, function, rank: int, args: tuple):
        self.error, self.reader = "", args[-1][rank].reader
        self.thread = threading.Thread(target=self.run, args=(function, rank, args))
        self.thread.start()

    def run(self, function, rank: int, args: tuple) -> None:
        try:
            self.reader.writer.wait_for_turn()
            function(rank, *args)
        except Stopped:
            pass
        except Exception:
            self.error = traceback.format_exc()
        self.reader.message = None
        self.reader.answer.release()

    exitcode = 0

    def join(self, timeout: float | None = None) -> None:
        self.thread.join()

    def kill(self) -> None:
        self.reader.open = False
        self.reader.turn.release()
        self.thread.join()


class Workers:
    def __init__(self, function, args: tuple, nprocs: int):
        self.processes = [Worker(function, rank, args) for rank in range(nprocs)]

    def join(self, timeout: float) -> None:
        assert timeout == 0, "of a worker that lives on, train() must still read"
        for rank, worker in enumerate(self.processes):
            if worker.error:
                raise torch_multiprocessing.ProcessRaisedException(worker.error, rank, 0)


def spawn(function, args: tuple, nprocs: int, join: bool) -> Workers:
    assert not join
    return Workers(function, args, nprocs)


def get_context(method: str) -> SimpleNamespace:
    assert method == "spawn", "a fork of a process with threads is none"

    def pipe(duplex: bool) -> tuple[Reader, Writer]:
        assert not duplex
        reader = Reader()
        return reader, reader.writer

    lock = threading.Lock
    return SimpleNamespace(Pipe=pipe, Value=lambda _, value: Value(value=value, lock=lock()))


turns = cycle(range(1 << 20))


def wait(readers: list[Reader]) -> list[Reader]:
    """Let the next worker in turn go on until it has sent something or ended."""
    reader = min(readers, key=lambda reader: getattr(reader, "last", -1))
    reader.last = next(turns)
    reader.turn.release()
    reader.answer.acquire()
    return [reader]


current_process = torch_multiprocessing.current_process
multiprocessing = SimpleNamespace(
    spawn=spawn, get_context=get_context, current_process=current_process
)
connection = SimpleNamespace(wait=wait)
