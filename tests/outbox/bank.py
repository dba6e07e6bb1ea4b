"""A process of the bank: `python bank.py DISPATCHER DATABASE` books transfers until it is killed."""

from __future__ import annotations

import sys

import psycopg

from solarwind import Event, Retry, SolarWind

# More than there are kills and restarts, each of which may cost an attempt.
PATIENT = Retry(attempts=10_000, wait=0.02, ceiling=0.2)


def main(url: str, database: str) -> None:
    wind = SolarWind(url)
    connections: list[psycopg.Connection] = []

    @wind.on("transfer", purpose="Book", retry=PATIENT, concurrency=2)
    def book(event: Event) -> None:
        bank = connections.pop() if connections else psycopg.connect(database)
        with bank:  # it commits, or rolls back, and closes it where that fails
            if event.once(bank):
                source, target = event.payload["from"], event.payload["to"]
                for account, change in sorted(((source, -1), (target, 1))):  # one order for all: no deadlocks
                    bank.execute("UPDATE account SET sum = sum + %s WHERE id = %s", (change, account))
                bank.execute("INSERT INTO applied (transfer) VALUES (%s)", (event.id,))
                wind.outbox(bank).fire("booked", event.id, key=str(source))

    wind.run()


if __name__ == "__main__":
    main(*sys.argv[1:])
