"""Which process this is, whether another one still lives, and an end together with a parent."""

from __future__ import annotations

import functools
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil

FIRST_NAMESPACE = "4026531836"  # of processes, in Linux; each container counts them in its own
CLOCK_S = 2  # the clock that starts are told by may be set between two looks


@dataclass(frozen=True)
class Process:
    """One process, told apart from all others, also from a later one with its number.

    Attributes
    ----------
    host
        The machine, and where a container counts processes by itself, that count: letters,
        digits, dots, hyphens, underscores.
    pid
        Its number there.
    start_s
        When it began, in seconds since 1970.
    """

    host: str
    pid: int
    start_s: int

    def __str__(self) -> str:
        """Give ``process 123 on host``."""
        return f"process {self.pid} on {self.host}"

    def is_dead(self) -> bool:
        """Tell whether it is known to have ended; nothing is known of another host."""
        if self.host != this_process().host or self == this_process():
            return False
        try:
            found = psutil.Process(self.pid)
            ended = found.status() == psutil.STATUS_ZOMBIE
            return ended or abs(found.create_time() - self.start_s) > CLOCK_S
        except psutil.NoSuchProcess:
            return True
        except psutil.Error:
            return False


def this_process() -> Process:
    """Give the process that this code runs in."""
    return _process(os.getpid())  # not the parent's, after a fork


@functools.lru_cache(maxsize=1)
def _process(pid: int) -> Process:
    return Process(_host(), pid, int(psutil.Process(pid).create_time()))


def _host() -> str:
    name = socket.gethostname()
    # A Mac may take its name from the network that it is in.
    if sys.platform == "darwin" and not (node := uuid.getnode()) >> 40 & 1:  # else it is random
        name = f"mac-{node:012x}"
    name = re.sub(r"[^\w.-]", "_", name, flags=re.ASCII)[:60] or "unknown"
    try:
        namespace = os.readlink("/proc/self/ns/pid")
    except OSError:  # not Linux
        return name
    number = re.sub(r"\D", "", namespace)
    return name if number == FIRST_NAMESPACE else f"{name}.{number}"


def end_with(wait: Callable[[], Any]) -> None:
    """End this process at once when `wait` returns: the parent is gone, and nobody waits for it.

    Files are written in a way that any end leaves them whole, so nothing is tidied up.
    """

    def watch() -> None:
        wait()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def hold_interrupts() -> None:
    """Let a process that this thread starts learn of Ctrl-C when `end_with_parent` is called.

    Before that it would answer, while it still imports, with a traceback.
    """
    if hasattr(signal, "pthread_sigmask"):  # not on Windows
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])


def end_with_parent() -> None:
    """End this process, one of multiprocessing, when its parent is gone, however it went.

    Ctrl-C ends it at once, without a word: the parent is told as well, and speaks for both.
    """
    if (parent := multiprocessing.parent_process()) is None:
        return
    end_with(parent.join)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as in the background of a script
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
