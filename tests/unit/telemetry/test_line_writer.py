"""Lines leave in order, in the background; what cannot leave is counted and stalls nobody."""

from __future__ import annotations

import os
import threading
import time

from qwen_allinone.telemetry.line_writer import LineWriter


def test_lines_of_many_threads_all_arrive_each_thread_s_in_order() -> None:
    written: list[bytes] = []
    writer = LineWriter("test", written.append)

    def put(thread: int) -> None:
        for number in range(500):
            writer.put(b"%d %d" % (thread, number))

    threads = [threading.Thread(target=put, args=(thread,)) for thread in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert writer.flush(30)
    assert writer.lost == 0
    for thread in range(4):
        mine = [line for line in written if line.startswith(b"%d " % thread)]
        assert mine == [b"%d %d" % (thread, number) for number in range(500)]


def test_a_line_that_cannot_be_written_is_counted_and_the_next_is_tried() -> None:
    written: list[bytes] = []

    def write(line: bytes) -> None:
        if line == b"bad":
            raise OSError("no space left")
        written.append(line)

    writer = LineWriter("test", write)
    for line in (b"a", b"bad", b"b"):
        writer.put(line)
    assert writer.flush(30)
    assert (written, writer.lost) == ([b"a", b"b"], 1)


def test_a_writer_that_hangs_stalls_nobody_and_costs_no_more_memory_than_allowed() -> None:
    gate = threading.Event()
    written: list[bytes] = []

    def write(line: bytes) -> None:
        gate.wait(60)
        written.append(line)

    writer = LineWriter("test", write, most_bytes=1000)
    began = time.monotonic()
    for _ in range(50):
        writer.put(b"x" * 100)
    assert not writer.flush(0.05)
    assert time.monotonic() - began < 30, "a hang"
    assert writer.lost == 40
    gate.set()
    assert writer.flush(30)
    assert len(written) == 10
    writer.put(b"again")
    assert writer.flush(30)
    assert written[-1] == b"again"


def test_a_child_begins_with_an_empty_queue_and_a_thread_of_its_own() -> None:
    read, write = os.pipe()
    gate = threading.Event()

    def slow(line: bytes) -> None:
        gate.wait(60)
        os.write(write, line)

    writer = LineWriter("test", slow)
    writer.put(b"parent\n")
    child = os.fork()
    if child == 0:
        gate.set()
        writer.put(b"child\n")
        os._exit(0 if writer.flush(30) and writer.lost == 0 else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    gate.set()
    assert writer.flush(30)
    os.close(write)
    with os.fdopen(read, "rb") as pipe:
        assert sorted(pipe.read().split()) == [b"child", b"parent"]
