"""Freed memory stays with the process: the second of two equal loops faults no page in."""

import subprocess
import sys

import pytest

LOOP = """
import resource, torch
from hybridstitch.batch.heap import keep_freed_memory
torch.set_num_threads(1)
kept = keep_freed_memory() if {keeps} else None
def loop():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        [torch.ones(size, 1024, 64) for size in (40, 80, 160)]  # 10 to 40 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
loop()
print(kept, loop())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's allocator")
def test_no_page_is_given_back():
    # in processes of their own: an allocator cannot be set back
    kept, without = (_run(keeps=keeps) for keeps in (True, False))
    assert kept[0] == "True"
    assert int(kept[1]) < 500 < 20_000 < int(without[1])


def _run(*, keeps: bool) -> list[str]:
    done = subprocess.run([sys.executable, "-c", LOOP.format(keeps=keeps)], capture_output=True, text=True, check=True)
    return done.stdout.split()
