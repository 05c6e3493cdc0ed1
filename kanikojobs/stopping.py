"""Whether a cluster of workers was asked to stop: one byte of memory that all its processes share.

Django-Q2 lets its workers finish what is queued in memory. What waits there is claimed rows, which others can take at
once if they are given back. A plain byte and no lock, because a worker may be killed while it looks.
"""

import mmap

# Made when the module is loaded, which `manage.py qcluster` does before it forks.
_asked = mmap.mmap(-1, 1)


def ask() -> None:
    """Have every process of this cluster give back what it has not begun."""
    _asked[0] = 1


def is_asked_for() -> bool:
    return _asked[0] == 1
