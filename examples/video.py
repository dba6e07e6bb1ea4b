"""A site for videos, as a service that reacts to what happens: `make demo`.

Started as a program it is a whole demonstration. It runs the service below with `solarwind dev`, is a producer of
events itself, as the web front of such a site would be, and prints the address of the console to look at. Ctrl-C ends
it. All it leaves is a folder, whose name it says; started again it goes on from there.

The service alone is started with `solarwind dev video:wind` in this folder.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import signal
import sys
from asyncio.subprocess import PIPE
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from solarwind import Event, Later, Reject, Retry, Share, SolarWind, SolarWindError

UPLOADS_PER_S = 3.0
USERS = "ann", "ben", "cleo", "dai", "eva", "finn", "gus", "hana", "ivo", "jun"  # version 2 gets all of two of them
AGAIN_S = 20.0  # the address is printed: the log of events carries it away
KEEP_S = 3_600.0  # of history: a demonstration that is left alone does not fill a disk

wind = SolarWind()


@dataclass
class Video:
    name: str
    user: str
    seconds: int
    format: str = "mov"


@dataclass
class Report:
    of: str


for each in ("video.uploaded", "video.encoded", "video.published", "subscriber.told", "rating.asked", "report.due"):
    wind.topic(each, keep=KEEP_S)
wind.every("1m", "report.due", Report("the last minute"), name="report of the minute")
wind.every("30 2 * * *", "report.due", Report("the day"), name="nightly report", zone="Europe/Berlin")


# The chain: an upload is encoded, what is encoded is published, and what is published is told to subscribers ---------


async def encode_to(format: str, video: Video, work_s: float) -> None:
    """Stand in for an encoder, which takes longer for a longer video."""
    await asyncio.sleep(work_s * video.seconds / 60)
    wind.fire("video.encoded", Video(video.name, video.user, video.seconds, format), key=video.user)


@wind.on("video.uploaded", purpose="Encode video")
async def encode(video: Video) -> None:
    await encode_to("mp4", video, 0.1)


@wind.on("video.uploaded", purpose="Encode video", version=2, rollout=Share(0.2))
async def encode_smaller(video: Video) -> None:
    """The next version gets a fifth of the videos, until somebody promotes it."""
    await encode_to("av1", video, 0.2)


@wind.on("video.encoded", purpose="Publish")
async def publish(video: Video, event: Event) -> None:
    if video.seconds % 10 == 0 and event.attempt == 1:
        raise ConnectionError("the page server does not answer")  # it is tried again, and then goes well
    wind.fire("video.published", video, key=video.user)


@wind.on("video.published", purpose="Tell subscribers")
async def tell(video: Video) -> None:
    await asyncio.sleep(0.02)
    wind.fire("subscriber.told", {"video": video.name, "about": video.user})
    if video.seconds > 100:
        wind.fire("rating.asked", {"video": video.name}, after=120)  # delayed: in two minutes


# Purposes of the same events, each with its own way ----------------------------------------------------------


@wind.on("video.uploaded", purpose="Make thumbnail", retry=Retry(attempts=3, wait=0.5, ceiling=2.0))
async def thumbnail(video: Video) -> None:
    if video.name.startswith("broken"):
        raise ValueError(f"no frames in {video.name}")  # three times, and then it is a dead letter
    await asyncio.sleep(0.03)


@wind.on("video.uploaded", purpose="Check rights")
async def check(video: Video) -> None:
    if video.name.startswith("song"):
        raise Reject("a song by somebody else")  # a dead letter at once
    if video.name.startswith("long"):
        raise Later(5)  # not a failure: it is looked at later


@wind.on("video.uploaded", purpose="Count per user", exchange="keyed")
async def count(event: Event) -> None:
    """One at a time for each user, in order."""
    await asyncio.sleep(0.01)


@wind.on("video.published", purpose="Live page", exchange="fanout")
async def show(video: Video) -> None:
    """Every instance gets a copy."""


@wind.on("rating.asked", purpose="Ask how it was")
async def ask(payload: dict[str, str]) -> None:
    await asyncio.sleep(0.01)


@wind.on("report.due", purpose="Send report")
async def report(report: Report) -> None:
    await asyncio.sleep(0.05)


# The demonstration -------------------------------------------------------------------------------------------


def upload(number: int) -> Video:
    """Return a video that somebody uploads."""
    kind = "broken" if number % 15 == 0 else "song" if number % 25 == 0 else "cat"
    return Video(f"{kind}-{number}.mov", random.choice(USERS), random.randint(5, 120))


async def produce(url: str, token: str) -> None:
    """Fire without end. A producer says what happened, and knows no purpose."""
    async with SolarWind(url, token=token) as front:
        earlier = (await front.statistics()).topics.get("video.uploaded")
        number = earlier.fired if earlier is not None else 0
        while True:
            number += 1
            video = upload(number)
            front.fire("video.uploaded", video, key=video.user)
            await asyncio.sleep(random.expovariate(UPLOADS_PER_S))


async def start(folder: Path, quiet: bool) -> asyncio.subprocess.Process:
    """Start the service. A terminal's Ctrl-C reaches this process alone, which tells it."""
    options = ["--data", str(folder / "wind.db"), "--port", "0", *["--quiet"] * quiet]
    command = [sys.executable, "-m", "solarwind", "dev", "video:wind", *options]
    here = Path(__file__).parent
    return await asyncio.create_subprocess_exec(*command, cwd=here, stdout=PIPE, start_new_session=True)


async def work(service: asyncio.subprocess.Process) -> None:
    """Wait for the console's address, print it, and fire events, until the service ends."""
    assert service.stdout is not None
    address = (await service.stdout.readline()).decode().strip()
    if not address:
        return  # it has said why
    print(address, flush=True)
    parts = urlsplit(address)
    async with asyncio.TaskGroup() as group:
        producer = group.create_task(produce(f"ws://{parts.netloc}", parts.fragment.removeprefix("token=")))
        reminder = group.create_task(remind(address))
        while line := await service.stdout.readline():
            print(line.decode(), end="", flush=True)
        producer.cancel()
        reminder.cancel()


async def remind(address: str) -> None:
    while True:
        await asyncio.sleep(AGAIN_S)
        print(f"The console: {address}", flush=True)


async def run(folder: Path, quiet: bool) -> int:
    """Run the service and the producer until a signal comes. Return the exit code."""
    folder.mkdir(parents=True, exist_ok=True)
    print(f"Its data is in {folder}. Ctrl-C ends it.", flush=True)
    told = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, told.set)
    service = await start(folder, quiet)
    signalled, working = asyncio.create_task(told.wait()), asyncio.create_task(work(service))
    await asyncio.wait([signalled, working], return_when=asyncio.FIRST_COMPLETED)
    ended = working.done()
    for task in (signalled, working):  # the producer first: what it has fired is accepted
        task.cancel()
    (failed,) = await asyncio.gather(working, return_exceptions=True)
    if not ended or failed is not None:
        service.terminate()
    code = await service.wait()  # it lets handlers finish
    if isinstance(failed, ExceptionGroup):
        raise failed.exceptions[0]
    return 0 if told.is_set() else code or 1


def main() -> int:
    parser = argparse.ArgumentParser(description="A site for videos, with its console.")
    parser.add_argument("--folder", default=Path(".demo"), type=Path, help="where its data is; default: .demo")
    parser.add_argument("--quiet", action="store_true", help="no log of events")
    options = parser.parse_args()
    try:
        return asyncio.run(run(options.folder.resolve(), options.quiet))
    except SolarWindError as error:
        print(error, file=sys.stderr)
        return 1


if __name__ == "__main__":
    os.environ.pop("SOLARWIND_URL", None)  # what it shows is its own
    sys.exit(main())
