"""Freed memory stays with the process, where a CPU draws.

glibc hands freed blocks of a tensor's size back to the kernel, and the next step faults them in again, page by page:
5,000 faults a dense step of the miniature pair, a tenth of its time on a virtual machine. A process that draws
pictures needs the same blocks at every step, so it keeps them. For processes that are ours; an application's
allocator is the application's.
"""

import ctypes
import sys

TRIM_THRESHOLD, MMAP_THRESHOLD = -1, -3  # malloc.h
LARGEST = 2**31 - 1  # an int


def keep_freed_memory() -> bool:
    """Let glibc neither trim its heap nor map blocks of their own.

    Returns:
        whether it does; False where the C library is another.
    """
    if sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and all(mallopt(option, LARGEST) == 1 for option in (TRIM_THRESHOLD, MMAP_THRESHOLD))
