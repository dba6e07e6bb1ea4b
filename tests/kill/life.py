"""One life of a process that tests kill: `python life.py MODE STORE HANDLED NUMBER`.

It says on its standard output, line by line and at once, what it was promised:

    ready
    accepted ID...      awaiting `fire` gave these ids
    died ID...          these were among the dead letters
    confirmed ID...     `settled` returned, so these are settled
    begun | ended N     of a handler that takes a while
    cancelling ID...    it is about to take these back
    cancelled ID...     `cancel` took these back

and its handlers append the line `NUMBER ID ATTEMPT .` to the file HANDLED, in one write each. One that is killed in
the middle of it leaves a line without the end.
"""

from __future__ import annotations

import asyncio
import os
import sys
from datetime import UTC, datetime

from solarwind import Dead, Event, Reject, Retry, SolarWind


def say(*words: object) -> None:
    os.write(1, (" ".join(map(str, words)) + "\n").encode())


class Life:
    def __init__(self, store: str, handled: str, number: str) -> None:
        self.wind = SolarWind(f"sqlite:///{store}")
        self.number = number
        self.handled: list[str] = []
        self._file = os.open(handled, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, event: Event) -> None:
        os.write(self._file, f"\n{self.number} {event.id} {event.attempt} .".encode())
        self.handled.append(event.id)

    async def fire_and_handle(self) -> None:
        """Until it is killed."""
        wind = self.wind

        @wind.on("T", purpose="p", retry=Retry(attempts=1_000_000, wait=0.0))
        async def handle(event: Event) -> None:
            wind.fire("child", event.id, id=f"child of {event.id}")
            self.note(event)

        @wind.on("child", purpose="q", exchange="keyed", retry=Retry(attempts=1_000_000, wait=0.0))
        async def child(event: Event) -> None:
            self.note(event)

        async with wind:
            say("ready")
            count = 0
            while True:
                count += 1
                receipts = [wind.fire("T", {"life": self.number, "n": n}) for n in range(1 + count % 40)]
                for receipt in receipts:
                    await receipt
                say("accepted", *(receipt.id for receipt in receipts))
                if count % 3 == 0:
                    await wind.settled(60)
                    confirmed, self.handled = self.handled, []
                    say("confirmed", *confirmed)

    async def fire_later(self) -> None:
        """Fire events for a moment later, and take some back, until it is killed. Handlers fire for later too."""
        wind = self.wind

        @wind.on("T", purpose="p", retry=Retry(attempts=1_000_000, wait=0.0))
        async def handle(event: Event) -> None:
            assert event.due is not None
            assert event.due <= datetime.now(UTC)
            wind.fire("child", event.id, id=f"child of {event.id}", after=0.01)
            self.note(event)

        @wind.on("child", purpose="q", retry=Retry(attempts=1_000_000, wait=0.0))
        async def child(event: Event) -> None:
            self.note(event)

        async with wind:
            say("ready")
            count = 0
            while True:
                count += 1
                receipts = [wind.fire("T", n, after=0.003 * (n % 5)) for n in range(1 + count % 40)]
                receipts += [wind.fire("T", n, after="1h") for n in range(3)]
                for receipt in receipts:
                    await receipt
                say("accepted", *(receipt.id for receipt in receipts))
                doomed = [receipt.id for receipt in receipts[-2:]]
                say("cancelling", *doomed)
                say("cancelled", *[id for id in doomed if await wind.cancel("T", id)])

    async def let_die(self) -> None:
        """Fire events that die, at once or of their last attempt, and hear of that, until it is killed."""
        wind = self.wind

        @wind.on("solarwind.dead", purpose="hears", retry=Retry(attempts=1_000_000, wait=0.0))
        async def hear(dead: Dead, event: Event) -> None:
            self.note(event)

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0.0))
        async def die(number: int) -> None:
            if number % 3 == 0:
                raise Reject("at once")
            if number % 3 == 1:
                raise ValueError("twice")

        async with wind:
            say("ready")
            number = 0
            while True:
                number += 1
                receipt = wind.fire_many("T", range(number % 40))
                await receipt
                say("accepted", *receipt.ids)

    async def handle_what_is_left(self) -> None:
        """Handle what `fire_and_handle` left behind."""
        wind = self.wind

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            wind.fire("child", event.id, id=f"child of {event.id}")
            self.note(event)

        @wind.on("child", purpose="q", exchange="keyed")
        async def child(event: Event) -> None:
            self.note(event)

        async with wind:
            await wind.settled(60)
            dead = await wind.dead("T", "p") + await wind.dead("child", "q")
            say("dead", *(letter.event.id for letter in dead))

    async def meet_poison(self) -> None:
        """Run a handler that kills its process."""
        wind = self.wind

        @wind.on("T", purpose="p", retry=Retry(attempts=3, wait=0.0))
        async def handle(what: str, event: Event) -> None:
            if what == "poison":
                os._exit(9)
            self.note(event)

        async with wind:
            await wind.settled(60)

    async def meet_poison_at_a_slow_rate(self) -> None:
        """Run a handler that kills its process as it begins."""
        wind = self.wind

        @wind.on("T", purpose="slow", since="beginning", rate="1/h")
        async def handle(event: Event) -> None:
            os._exit(9)

        async with wind:
            await wind.settled(60)

    async def meet_poison_of_several(self) -> None:
        """Run several purposes of two topics in one process, two of which have an event that kills it."""
        wind = self.wind

        def handler(topic: str, purpose: str, poison: str, exchange: str) -> None:
            @wind.on(topic, purpose=purpose, exchange=exchange, retry=Retry(attempts=3, wait=0.0))
            async def handle(what: str, event: Event) -> None:
                if what == poison:
                    os._exit(9)
                self.note(event)

        handler("T", "p", "poison", "direct")
        handler("T", "q", "none", "keyed")
        handler("U", "r", "none", "direct")
        handler("U", "s", "poison", "direct")
        async with wind:
            await wind.settled(60)

    def serve(self) -> None:
        """Run a service until it is told to stop."""
        wind = self.wind

        @wind.on("T", purpose="p", concurrency=2)
        async def handle(number: int) -> None:
            say("begun", number)
            over = asyncio.Event()
            asyncio.get_running_loop().call_later(0.3, over.set)
            await over.wait()
            wind.fire("child", number)
            say("ended", number)

        wind.run()
        say("drained")


def main() -> None:
    mode, store, handled, number = sys.argv[1:]
    life = Life(store, handled, number)
    if mode == "serve":
        life.serve()
    else:
        asyncio.run(getattr(life, mode)())


if __name__ == "__main__":
    main()
