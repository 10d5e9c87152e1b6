"""A proxy before a control socket that cuts a connection at a chosen request, as a daemon does that goes away there.

BEFORE: the request is not handed on. MIDDLE: half of it is. AFTER: the daemon carries it out, and its answer is lost.
"""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from pathlib import Path


class Cut(Enum):
    BEFORE = "before"
    MIDDLE = "middle"
    AFTER = "after"


class CuttingProxy:
    """A context manager; clients connect to `url`. What passes is noted in `requests`: the operations, in their order."""

    def __init__(self, path: Path, target: Path) -> None:
        self.url = f"unix://{path}"
        self.requests: list[str] = []
        self._target = target
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(path))
        self._listener.listen()
        self._plan: list[tuple[str, Cut]] = []
        self._threads: list[threading.Thread] = []
        self._refusal: dict[str, object] | None = None
        self._held: tuple[str, threading.Event] | None = None

    def cut(self, operation: str, where: Cut, times: int = 1) -> None:
        """The next `times` requests of that operation meet a cut."""
        self._plan += [(operation, where)] * times

    def hold(self, operation: str) -> threading.Event:
        """The next request of that operation gets no answer; set when it has come."""
        self._held = (operation, threading.Event())
        return self._held[1]

    def refuse_next(self, number: int, code: str) -> None:
        """The next request is not handed on, but answered with an error."""
        self._refusal = {"v": 1, "ok": False, "errno": number, "code": code, "message": "Not now."}

    def __enter__(self) -> CuttingProxy:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join(10)
        assert not self._plan, f"these cuts were not met: {self._plan}"

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self._start(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        daemon = socket.socket(socket.AF_UNIX)
        daemon.connect(str(self._target))
        is_lost = threading.Event()
        passing = threading.Thread(target=_pass_on, args=(daemon, client, is_lost), daemon=True)
        try:
            self._requests(client, daemon, passing, is_lost)
        except OSError:
            return
        finally:
            for end in (client, daemon):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
            if passing.ident is not None:
                passing.join(10)
            client.close()
            daemon.close()

    def _requests(
        self,
        client: socket.socket,
        daemon: socket.socket,
        passing: threading.Thread,
        is_lost: threading.Event,
    ) -> None:
        with client.makefile("rb") as reader:
            passing.start()
            while line := reader.readline():
                fields = json.loads(line)
                whole = line + reader.read(fields.get("body", 0))
                refusal, self._refusal = self._refusal, None
                if refusal is not None:
                    client.sendall(json.dumps(refusal).encode() + b"\n")
                    continue
                if self._held is not None and self._held[0] == fields["op"]:
                    self._held[1].set()
                    self._held = None
                    reader.read()  # until the client goes
                    return
                where = self._met(fields["op"])
                if where is None:
                    self.requests.append(fields["op"])
                    daemon.sendall(whole)
                    continue
                is_lost.set()
                if where is Cut.MIDDLE:
                    daemon.sendall(whole[: len(whole) // 2])
                elif where is Cut.AFTER:
                    daemon.sendall(whole)
                    daemon.shutdown(socket.SHUT_WR)
                    passing.join(10)
                return

    def _met(self, operation: str) -> Cut | None:
        for number, (wanted, where) in enumerate(self._plan):
            if wanted == operation:
                del self._plan[number]
                return where
        return None


def _pass_on(daemon: socket.socket, client: socket.socket, is_lost: threading.Event) -> None:
    """Answers, until the daemon has no more; those that are lost are read all the same."""
    with suppress(OSError):
        while data := daemon.recv(65536):
            if not is_lost.is_set():
                client.sendall(data)
