"""A service that is to end ends, whatever its handlers do, and says for whom it waits."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

import pytest

from sampling import some

from .conftest import Answer, Process, done

Start = Callable[..., Process]
Write = Callable[[str, str], None]

HEAD = """
    import asyncio, sys, threading, time
    from solarwind import Retry, SolarWind
    wind = SolarWind(grace=0.3)
    """

HOLDS_UP = {
    "swallows its cancellation": """
    @wind.on("t", purpose="p", since="beginning")
    async def handle() -> None:
        print("began", flush=True)
        while True:
            try:
                await asyncio.sleep(0.05)
            except BaseException:
                pass
    """,
    "has a task that swallows its cancellation": """
    async def on_and_on():
        while True:
            try:
                await asyncio.sleep(0.05)
            except BaseException:
                pass

    @wind.on("t", purpose="p", since="beginning")
    async def handle() -> None:
        wind.task = asyncio.create_task(on_and_on())
        print("began", flush=True)
    """,
    "hangs in a thread": """
    @wind.on("t", purpose="p", since="beginning")
    def handle() -> None:
        print("began", flush=True)
        threading.Event().wait()
    """,
    "hangs in a thread of asyncio": """
    @wind.on("t", purpose="p", since="beginning")
    async def handle() -> None:
        print("began", flush=True)
        await asyncio.to_thread(threading.Event().wait)
    """,
    "blocks the loop": """
    @wind.on("t", purpose="p", since="beginning")
    async def handle() -> None:
        print("began", flush=True)
        time.sleep(3_600)
    """,
    "has a thread that nobody ends": """
    @wind.on("t", purpose="p", since="beginning")
    async def handle() -> None:
        threading.Thread(target=threading.Event().wait).start()
        print("began", flush=True)
    """,
}


@pytest.mark.parametrize("what", some(["swallows its cancellation", "hangs in a thread", "blocks the loop"], HOLDS_UP))
def test_a_service_ends_whatever_its_handler_does(url: str, start: Start, write: Write, what: str) -> None:
    write("app.py", HEAD + HOLDS_UP[what])
    done("fire", "t", "1", "--url", url)
    process = start("run", "app:wind", "--url", url)
    process.read("began")
    process.signal(signal.SIGTERM)
    answer = process.end()
    assert answer.code == (1 if what == "blocks the loop" else 0)
    assert "Traceback" not in answer.err


@pytest.mark.long
def test_a_second_signal_ends_at_once_what_blocks_the_loop(url: str, start: Start, write: Write) -> None:
    write("app.py", HEAD.replace("0.3", "100") + HOLDS_UP["blocks the loop"])
    done("fire", "t", "1", "--url", url)
    process = start("run", "app:wind", "--url", url)
    process.read("began")
    process.signal(signal.SIGTERM)
    time.sleep(0.1)  # two of a kind may become one
    process.signal(signal.SIGINT)
    answer = process.end()
    assert answer.code == 1
    assert "leaving at once" in answer.err


BUSY = """
    import asyncio
    from solarwind import SolarWind
    wind = SolarWind()

    @wind.on("t", purpose="p", since="beginning", concurrency=2)
    async def handle() -> None:
        print("began", flush=True)
        await asyncio.sleep(3_600)
    """


def test_it_says_for_how_many_handlers_it_waits_and_how_long(url: str, start: Start, write: Write) -> None:
    write("app.py", BUSY)
    done("fire", "t", "--lines", "--url", url, input="1\n2\n3\n")
    process = start("run", "app:wind", "--url", url, "--grace", "30")
    process.read("began")
    process.read("began")
    process.signal(signal.SIGINT)
    process.read_err("draining: 2 handlers, up to 30 s; a second signal does not wait")
    process.signal(signal.SIGINT)
    assert process.end().code == 0


PROGRAM = """
    import asyncio
    from solarwind import SolarWind
    wind = SolarWind("memory://")

    @wind.on("t")
    async def handle() -> None:
        print("began", flush=True)
        await asyncio.sleep(3_600)

    async def main() -> None:
        async with wind:
            wind.fire("t")
            await wind.settled(60)

    asyncio.run(main())
    """


def test_a_program_with_asyncio_run_says_it_too(start: Start, write: Write) -> None:
    write("program.py", PROGRAM)
    process = start(module="program")
    process.read("began")
    process.signal(signal.SIGINT)
    process.read_err("draining: 1 handler, up to 30 s; a second signal does not wait")
    process.signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.end().err


EXITS = {
    "an async def handler": """
    @wind.on("t", purpose="p", since="beginning", retry=Retry(attempts=2, wait=0))
    async def handle(number: int) -> None:
        if number == 2:
            sys.exit(3)
    """,
    "a def handler": """
    @wind.on("t", purpose="p", since="beginning", retry=Retry(attempts=2, wait=0))
    def handle(number: int) -> None:
        if number == 2:
            raise KeyboardInterrupt
    """,
    "a task that a handler waits for": """
    async def leave():
        sys.exit(3)

    @wind.on("t", purpose="p", since="beginning", retry=Retry(attempts=2, wait=0))
    async def handle(number: int) -> None:
        if number == 2:
            await asyncio.gather(leave())
    """,
    "a callback": """
    @wind.on("t", purpose="p", since="beginning", retry=Retry(attempts=2, wait=0))
    async def handle(number: int) -> None:
        if number == 2:
            asyncio.get_running_loop().call_soon(sys.exit, 3)
            await asyncio.sleep(0)
            raise RuntimeError("two")
    """,
}


@pytest.mark.parametrize(
    ("where", "workers"),
    some(
        [("an async def handler", ()), ("a def handler", ())],
        [*((where, ()) for where in EXITS), ("an async def handler", ("--workers", "2"))],
    ),
)
def test_sys_exit_ends_an_attempt_and_not_the_service(
    url: str, start: Start, write: Write, where: str, workers: tuple[str, ...]
) -> None:
    write("app.py", HEAD + EXITS[where])
    done("fire", "t", "--lines", "--url", url, input="1\n2\n3\n")
    answer: Answer = start("run", "app:wind", "--url", url, "--until-settled", *workers).end()
    assert answer.code == 0
    assert "starting it again" not in answer.err
    [found] = done("purposes", "--url", url, "--json").json
    assert (found["settled"], found["dead"], found["pending"]) == (2, 1, 0)
