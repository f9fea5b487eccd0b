"""Memory of forked processes: what a parent imports before the fork exists once, until a process writes to it."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress
from importlib import import_module

# Net new containers before a garbage collection of the young generation. A request makes thousands and leaves no
# cycles, so the default of 700 collects in vain several times per request.
GC_THRESHOLD = 25_000
# Bytes; larger blocks return to the system when freed. glibc would raise the threshold dynamically with the first
# password hash (19 MiB), and each process would keep that memory from then on.
MMAP_THRESHOLD = 1 << 20
M_MMAP_THRESHOLD = -3  # malloc.h
LATE = ("valkey", "encodings.utf_8_sig")  # imported by libraries at their first use, where they are installed


def share(*modules: str) -> None:
    """Import modules in the parent, and exclude all objects so far from garbage collection.

    A collection writes to each object it visits, and so would copy every page. Without it there are no pauses for them
    either, and no long final collection at exit.
    """
    with suppress(AttributeError):  # only in glibc
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, MMAP_THRESHOLD)
    gc.disable()
    for module in modules:
        import_module(module)
    for module in LATE:
        with suppress(ImportError):
            import_module(module)
    gc.freeze()
    gc.set_threshold(GC_THRESHOLD)
    gc.enable()
