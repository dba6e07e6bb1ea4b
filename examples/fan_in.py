"""Fan-in: something happens once all parts are done, exactly once, though handlers fail and are called again.

python examples/fan_in.py
"""

from __future__ import annotations

import asyncio
import random
import sqlite3
import subprocess
import sys
import tempfile
from contextlib import closing
from pathlib import Path

from solarwind import Event, Retry, SolarWind

FOLDER = tempfile.TemporaryDirectory(prefix="fan-in-")  # is removed at the end
FILE = Path(FOLDER.name) / "videos.db"
VIDEOS, PARTS = 5, 12

wind = SolarWind("memory://")
complete: list[str] = []
done = asyncio.Event()


@wind.on("part.cut", purpose="Encode a part", retry=Retry(wait=0.01))
async def encode(part: dict, event: Event) -> None:
    wind.fire("part.encoded", part)


@wind.on(
    "part.encoded", purpose="Publish when all parts are done", exchange="keyed", key="$.video", retry=Retry(wait=0.01)
)
def count(part: dict, event: Event) -> None:
    with closing(sqlite3.connect(FILE)) as db, db:
        if event.once(db):
            db.execute("UPDATE video SET missing = missing - 1 WHERE name = ?", (part["video"],))
            (missing,) = db.execute("SELECT missing FROM video WHERE name = ?", (part["video"],)).fetchone()
            if missing == 0:
                wind.outbox(db).fire("video.complete", {"video": part["video"]})
    if event.attempt == 1 and random.random() < 0.3:
        raise ConnectionError("after the commit: this part is counted, and comes again")


@wind.on("video.complete", purpose="Publish")
async def publish(video: dict) -> None:
    complete.append(video["video"])
    if len(complete) == VIDEOS:
        done.set()


async def main() -> None:
    with closing(sqlite3.connect(FILE)) as db, db:
        db.executemany("INSERT INTO video VALUES (?, ?)", [(f"video {n}", PARTS) for n in range(VIDEOS)])
        for number in range(VIDEOS):
            wind.outbox(db).fire_many("part.cut", [{"video": f"video {number}", "part": part} for part in range(PARTS)])
    wind.relay(f"sqlite:///{FILE}")
    async with wind:
        await done.wait()
        await wind.settled(timeout=60)


if __name__ == "__main__":
    with closing(sqlite3.connect(FILE)) as db:
        db.execute("CREATE TABLE video (name TEXT PRIMARY KEY, missing INTEGER NOT NULL)")
    command = [sys.executable, "-m", "solarwind", "outbox", "init", "--database", f"sqlite:///{FILE}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    asyncio.run(main())
    print(sorted(complete))
