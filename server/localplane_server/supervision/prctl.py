"""What Linux lets a process ask for itself and Python lacks. Standard library only."""

from __future__ import annotations

import ctypes
import os

_PR_SET_PDEATHSIG = 1
_PR_SET_NAME = 15
_PR_SET_CHILD_SUBREAPER = 36

_libc = ctypes.CDLL(None, use_errno=True)
_libc.prctl.argtypes = [ctypes.c_int, *[ctypes.c_ulong] * 4]
_libc.prctl.restype = ctypes.c_int


def become_subreaper() -> None:
    """Make the calling process the parent of every descendant whose own parent dies."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def die_with_parent(signal_number: int) -> None:
    """Have the kernel send the calling process a signal once its parent is dead.

    A parent that died before the call goes unnoticed: compare `os.getppid()` afterwards.
    """
    _prctl(_PR_SET_PDEATHSIG, signal_number)


def name_process(name: str) -> None:
    """Give the calling process the name that `ps -o comm` shows, of 15 bytes at most."""
    buffer = ctypes.create_string_buffer(name.encode()[:15])
    _prctl(_PR_SET_NAME, ctypes.addressof(buffer))


def _prctl(option: int, argument: int) -> None:
    if _libc.prctl(option, argument, 0, 0, 0) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
