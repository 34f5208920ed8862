"""How the CPU rasteriser's kernels are compiled and run: numba's settings, and one lock around every parallel call.

numba runs `prange` on one of three layers. Its OpenMP layer kills a forked process (a DataLoader worker) whose parent
has used it; TBB is seldom installed; the workqueue layer survives fork() and is as fast here, but aborts the process
when two threads enter it at once. So: workqueue, unless the user has chosen another (NUMBA_THREADING_LAYER), and a
lock, renewed in forked children, that lets one thread in at a time.
"""

import os
import threading

import numba
from numba import njit

_lock = threading.Lock()

# NaN and infinity keep their meaning (they are culled), so not all of fastmath.
_FAST = {"contract", "reassoc", "nsz", "arcp"}


def _renew_lock() -> None:
    global _lock
    _lock = threading.Lock()


def exclusive() -> threading.Lock:
    """The lock that every caller of a parallel kernel holds: `with exclusive(): ...`."""
    return _lock


def choose_threading_layer() -> None:
    """Take the workqueue layer where nobody has chosen; without effect once numba has started its threads."""
    if numba.config.THREADING_LAYER == "default":
        numba.config.THREADING_LAYER = "workqueue"


def kernel(parallel: bool = False):
    """Compile at the first call and keep the machine code on disk.

    numba keeps it beside the source, or in the user's cache directory where that cannot be written, or in
    NUMBA_CACHE_DIR; where none can be written each process compiles anew (some 10 s).
    """

    def decorate(function):
        options = {"fastmath": _FAST, "error_model": "numpy", "nogil": True, "parallel": parallel}
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # "no locator available": nowhere to write
            return njit(**options)(function)

    return decorate


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)
choose_threading_layer()
