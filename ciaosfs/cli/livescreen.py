"""The whole terminal for a view that changes in place, until a key ends it, and given back as it was.

A frame is written at once, line over line, so nothing flickers. A terminal that changes its size, or a command that
comes back from being stopped, gets a frame at once.
"""

from __future__ import annotations

import os
import select
import shutil
import signal
import sys
import termios
import tty
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ciaosfs.base import clock
from ciaosfs.cli import output

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
"""Another page, no cursor, no wrapping of long lines; and back."""
ENDING_KEYS = (b"q", b"Q", b"\x03", b"\x04", b"\x1b")


class LiveScreen:
    """Made by `live_screen`."""

    def __init__(self, keyboard: int, waker: int) -> None:
        self._keyboard = keyboard
        self._waker = waker
        self.has_ended = False

    @property
    def lines(self) -> int:
        return shutil.get_terminal_size().lines

    def show(self, lines: Sequence[str]) -> None:
        """Show these lines, as far as they fit, instead of those before."""
        columns, rows = shutil.get_terminal_size()
        content = "".join(f"{line[:columns]}\x1b[K\r\n" for line in lines[: rows - 1])
        output.print_raw(f"\x1b[H{content}\x1b[J")

    def wait(self, until_s: float) -> bool:
        """Return True at the monotonic time `until_s`; False earlier: a key was pressed (`has_ended` when it ends the
        view), or the terminal has changed and wants to be drawn again."""
        left = max(0.0, until_s - clock.monotonic_s())
        ready, _, _ = select.select([self._keyboard, self._waker], [], [], left)
        if self._waker in ready:
            os.read(self._waker, 4096)
        if self._keyboard in ready:
            pressed = os.read(self._keyboard, 1)  # more would be of one arrow key, which begins like Escape
            waiting = bool(select.select([self._keyboard], [], [], 0)[0])
            if waiting:
                termios.tcflush(self._keyboard, termios.TCIFLUSH)
            self.has_ended = not pressed or (pressed in ENDING_KEYS and not (pressed == b"\x1b" and waiting))
        return not ready


@contextmanager
def live_screen() -> Iterator[LiveScreen]:
    """The terminal on stdin and stdout, which must be one."""
    keyboard = sys.stdin.fileno()
    before = termios.tcgetattr(keyboard)
    reading, writing = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def enter() -> None:
        tty.setcbreak(keyboard, termios.TCSANOW)
        output.print_raw(_ENTER)

    def leave() -> None:
        output.print_raw(_LEAVE)
        termios.tcsetattr(keyboard, termios.TCSANOW, before)

    def stop(number: int, frame: FrameType | None) -> None:
        leave()
        os.kill(os.getpid(), signal.SIGSTOP)
        enter()

    def ignore(number: int, frame: FrameType | None) -> None:
        """That it came is written to the pipe."""

    handlers = {signal.SIGWINCH: ignore, signal.SIGTSTP: stop, signal.SIGTERM: _end}
    kept = {number: signal.signal(number, handler) for number, handler in handlers.items()}
    waker = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    try:
        enter()
        try:
            yield LiveScreen(keyboard, reading)
        except KeyboardInterrupt:
            return  # an ordinary way to end a view
        finally:
            leave()
    finally:
        signal.set_wakeup_fd(waker)
        for number, handler in kept.items():
            signal.signal(number, handler)
        os.close(reading)
        os.close(writing)


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
