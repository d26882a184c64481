"""Which signal came, whoever handles it."""

from __future__ import annotations

import signal
import socket
import threading


class SignalsNoted:
    """Notes signals from now until it is closed, beside whatever handles them.

    Dagster's handlers raise the same exception for SIGTERM as for Ctrl-C. Python itself writes the number of each
    signal to a descriptor of one's choice before it calls any handler.
    """

    def __init__(self) -> None:
        self._ours, self._pythons = socket.socketpair()
        self._ours.setblocking(False)
        self._pythons.setblocking(False)
        self._before = -1
        self._is_main = threading.current_thread() is threading.main_thread()
        if self._is_main:
            self._before = signal.set_wakeup_fd(self._pythons.fileno(), warn_on_full_buffer=False)

    def last(self) -> int:
        """The number of the last one that ends a process; 0 if none has come."""
        try:
            numbers = self._ours.recv(4096)
        except BlockingIOError:
            return 0
        return next((number for number in reversed(numbers) if number in (signal.SIGINT, signal.SIGTERM)), 0)

    def close(self) -> None:
        """Note no more."""
        if self._is_main:
            signal.set_wakeup_fd(self._before)
        self._ours.close()
        self._pythons.close()
