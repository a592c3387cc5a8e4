"""How much memory there is for us."""

import mmap
from pathlib import Path

from qwen_allinone import memory


def test_the_memory_limit_is_the_smaller_of_cgroup_and_machine(tmp_path: Path) -> None:
    machine = memory.memory_limit([])
    limited, unlimited = tmp_path / "limited", tmp_path / "unlimited"
    limited.write_text("1000000\n")
    unlimited.write_text("max\n")
    assert memory.memory_limit([limited]) == 1_000_000
    assert memory.memory_limit([unlimited, tmp_path / "absent"]) == machine


def test_a_process_that_takes_memory_is_seen_to_have_it() -> None:
    before = memory.resident_bytes()
    with mmap.mmap(-1, 40_000_000) as block:  # of its own: a heap may have as much to spare
        block.write(b"x" * 40_000_000)
        assert memory.resident_bytes() - before > 30_000_000
