"""Keeps processes running: the workers and the dispatcher of `run --workers`, and the service of `run --reload`.

Each is a `solarwind` process, and notifies of its readiness as it would notify systemd. One that ends is restarted,
after a pause that grows while it keeps ending early. If one refuses to start and none was ever ready, everything ends;
with `--reload` it waits for a source file to change.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Coroutine, Mapping, Sequence
from typing import Any

from ..engine.tasks import Tasks
from ..errors import StoreError
from . import reload
from .parent import PARENT, tell

STEADY_S = 10.0  # a process that ran for so long did not fail at its start
FIRST_PAUSE_S = 0.5
MAX_PAUSE_S = 30.0
HURRY_S = 5.0  # for a process to end at once, before it is killed
_REFUSALS = (1, 2)  # exit codes
_NOT_STARTED = 127

log = logging.getLogger("solarwind")


class Child:
    """One process, and its successors."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        environment: Mapping[str, str],
        *,
        files: Collection[int] = (),
        leaves: bool = False,
    ) -> None:
        """`files` are descriptors that it inherits; with `leaves` it may end by itself, when all is done."""
        self.name = name
        self.ready = asyncio.Event()  # it was ready at least once
        self._command = [sys.executable, "-m", "solarwind", *arguments]
        self._environment = environment
        self._files = files
        self._leaves = leaves
        self._process: asyncio.subprocess.Process | None = None
        self._told = False  # the process that runs was told to end
        self._ending = False
        self._again = False
        self._wake = asyncio.Event()
        self._ear = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        self._ear.bind("")  # to a unique name, which ends with this process

    async def keep(self, reloads: bool, is_first: Callable[[], bool] = lambda: True) -> int:
        """Keep it running until it is told to end, or has nothing more to do. Return its exit code.

        `is_first`: no other child was ever ready, so that all would refuse to start for the same reason.
        """
        asyncio.get_running_loop().add_reader(self._ear, self._hear)
        pause = 0.0
        while True:
            began = time.monotonic()
            code = await self._live()
            if self._ending:
                return code
            if self._again:
                pause = 0.0
            elif reloads and code in (0, *_REFUSALS):
                log.warning("%s ended with exit code %d, waiting for a file to change", self.name, code)
                await self._wake.wait()
            elif (code == 0 and self._leaves) or (code in _REFUSALS and not self.ready.is_set() and is_first()):
                return code
            else:
                pause = 0.0 if time.monotonic() - began > STEADY_S else pause
                log.warning("%s ended %s, starting it again%s", self.name, _how(code), f" in {pause:g} s" * (pause > 0))
                await self._rest(pause)
                pause = min(max(2 * pause, FIRST_PAUSE_S), MAX_PAUSE_S)
            if self._ending:  # while it did not run
                return 0
            self._again = False
            self._wake.clear()

    async def _live(self) -> int:
        """Run one process and return its exit code."""
        address = self._ear.getsockname().decode()
        environment = {**self._environment, PARENT: str(os.getpid()), "NOTIFY_SOCKET": "@" + address[1:]}
        try:
            # A session of its own: a terminal's Ctrl-C would reach it twice, and a second signal ends the draining.
            self._process = await asyncio.create_subprocess_exec(
                *self._command, env=environment, pass_fds=self._files, start_new_session=True
            )
        except OSError as error:
            log.error("%s cannot be started: %s", self.name, error)
            return _NOT_STARTED
        self._told = False
        if self._ending or self._again:  # meanwhile
            self._tell_to_end()
        return await self._process.wait()

    async def _rest(self, pause: float) -> None:
        """Wait `pause` seconds, or until it is told to end or restart."""
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            pass

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self._ear)
        self._ear.close()

    def _hear(self) -> None:
        if b"READY=1" in self._ear.recv(4096):
            self.ready.set()

    def end(self) -> None:
        """Let it drain, however long its grace is, and do not restart it."""
        self._ending = True
        self._tell_to_end()

    def again(self) -> None:
        """Let it drain, and restart it."""
        self._again = True
        self._tell_to_end()

    def hurry(self) -> None:
        """End it without waiting until it has drained."""
        self.end()
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGINT)  # two of a kind may become one
        asyncio.get_running_loop().call_later(HURRY_S, self._signal, signal.SIGKILL)

    def _tell_to_end(self) -> None:
        self._wake.set()
        if not self._told:
            self._told = True
            self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)


def _how(code: int) -> str:
    names = {each.value: each.name for each in signal.Signals}
    return f"with exit code {code}" if code >= 0 else f"by {names.get(-code, f'signal {-code}')}"


class Supervisor:
    """Keeps workers, and their dispatcher if it was started here, until a signal comes or all are done."""

    def __init__(
        self,
        workers: Sequence[Child],
        dispatcher: Child | None = None,
        *,
        reloads: bool = False,
        served: Callable[[], Coroutine[Any, Any, None]] | None = None,
    ) -> None:
        """`served` is called once the dispatcher is ready for the first time; what it returns goes on until the workers
        end."""
        self._workers = workers
        self._served = served
        self._dispatcher = dispatcher
        self._reloads = reloads
        self._over = False
        self._failed = False  # it cannot go on after something unexpected
        self._background = Tasks(self._fail)
        self._beside = Tasks(self._fail)
        self._tasks: dict[Child, asyncio.Task[int]] = {}

    async def run(self) -> int:
        """Run all of them and return the exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(number, self._signalled)
        if self._reloads:
            self._background.begin(self._watch(reload.times()), "the look at source files")
        # One by one until the first is ready, so that an error common to all is shown once.
        everybody = [*filter(None, [self._dispatcher]), *self._workers]
        for child in everybody:
            if not self._over:
                self._tasks[child] = self._background.begin(self._keep(child), f"the look after {child.name}")
                if child is self._dispatcher or child is self._workers[0]:
                    await self._begun(child)
                if child is self._dispatcher and child.ready.is_set() and self._served is not None:
                    self._beside.spawn(self._served(), "what goes on beside the service")
        if not self._over:
            tell("READY=1")
        workers = [task for child, task in self._tasks.items() if child is not self._dispatcher]
        codes = await asyncio.gather(*workers, return_exceptions=True)
        await self._beside.end()  # before the dispatcher that it is at
        if self._dispatcher is not None:
            self._dispatcher.end()
            codes += await asyncio.gather(self._tasks[self._dispatcher], return_exceptions=True)
        await self._background.end()
        for child in everybody:
            child.close()
        return 1 if self._failed else next((code for code in codes if code in _REFUSALS), 0)

    def _fail(self, error: StoreError) -> None:
        """End all of them: one that is not looked after would not come back."""
        log.critical("everything ends: %s", error)
        self._failed = True
        self._end()

    async def _keep(self, child: Child) -> int:
        reloads = self._reloads and child is not self._dispatcher
        code = await child.keep(reloads, lambda: not any(worker.ready.is_set() for worker in self._workers))
        if code:  # without it there is no use in the others
            self._end()
        return code

    async def _begun(self, child: Child) -> None:
        """Wait until it is ready, or has ended."""
        ready = asyncio.ensure_future(child.ready.wait())
        await asyncio.wait([ready, self._tasks[child]], return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()

    async def _watch(self, files: dict[str, int]) -> None:
        async for path in reload.changes(files):
            log.warning("%s changed, restarting", path)
            for worker in self._running():
                worker.again()

    def _signalled(self) -> None:
        """Drain the workers, and then the dispatcher; the second time end at once."""
        if not self._over:
            self._end()
            return
        for child in self._running() or filter(None, [self._dispatcher]):
            child.hurry()

    def _running(self) -> list[Child]:
        return [each for each in self._workers if each in self._tasks and not self._tasks[each].done()]

    def _end(self) -> None:
        self._over = True
        for worker in self._workers:
            worker.end()
