"""bench/accounting.py: sums over /proc, by texts as the kernel writes them, and of this very process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from bench.accounting import Stat, connected, cpu, peak, resident, stat_of, tree, used

LINE = "4711 ({name}) S 42 4711 4711 0 -1 4194304 5000 900 0 0 150 50 30 20 20 0 1 0 99 1000 200 18446744073709551615\n"
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0A29 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1 0 100 0 0 10 0
   1: 0100007F:9C40 0100007F:0A29 01 00000000:00000000 00:00000000 00000000     0        0 12 1 0 20 4 30 10 -1
   2: 0100007F:0A29 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 13 1 0 20 4 30 10 -1
   3: 0100007F:9C41 0100007F:0A29 01 00000000:00000000 00:00000000 00000000     0        0 14 1 0 20 4 30 10 -1
   4: 0100007F:9C42 0100007F:0A29 06 00000000:00000000 00:00000000 00000000     0        0 15 1 0 20 4 30 10 -1
"""


@pytest.mark.parametrize("name", ["python", "a (b) c", ") S 1 1 1 ("])
def test_a_line_is_read_whatever_the_name(name: str) -> None:
    assert stat_of(LINE.format(name=name), ticks=100) == Stat(4711, 42, 2.0, 0.5)


def test_a_tree_is_summed_once() -> None:
    stats = [Stat(1, 0, 8.0, 9.0), Stat(5, 1, 1.0, 0.5), Stat(7, 5, 2.0, 0.0), Stat(8, 7, 4.0, 0.25), Stat(9, 1, 16, 0)]
    assert [stat.pid for stat in tree(stats, [5])] == [5, 7, 8]
    assert cpu(tree(stats, [5])) == 7.75
    assert cpu(tree(stats, [5, 7])) == 7.75
    assert tree(stats, [404]) == []


def test_established_connections_of_clients_count() -> None:
    assert connected(0x0A29, TABLE) == 2
    assert connected(0x9C40, TABLE) == 1
    assert connected(25, TABLE) == 0


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux'")
def test_this_process_and_a_child_that_ended() -> None:
    before = used(os.getpid())
    subprocess.run([sys.executable, "-S", "-c", "sum(range(2_000_000))"], check=True)
    assert used(os.getpid()) > before
    assert 0 < resident(os.getpid()) <= peak(os.getpid())
