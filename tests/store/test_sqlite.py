"""What a store in a file promises, each test a rule of it. Real files, no sleeps."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import apsw
import hypothesis
import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from msgspec import UNSET

from solarwind.batch import Batch, make_id, seal
from solarwind.core.log import Stored
from solarwind.core.spans import Spans
from solarwind.core.state import Change, Creation, Letter, State, Statement, Waiting
from solarwind.errors import StoreError
from solarwind.event import Cause
from solarwind.store import commits, inspection, reading, writeahead
from solarwind.store.base import BatchPlace, Recovered
from solarwind.store.check import backup, check
from solarwind.store.sqlite import SqliteStore

Test = Callable[[SqliteStore], Awaitable[None]]


def batch(
    topic: str,
    count: int = 1,
    *,
    first: int = 0,
    producer: int = 1,
    time: int = 1_000_000,
    step: int = 1,
    ids: list[str | None] | None = None,
    causes: list[Cause | None] | None = None,
    payload: bytes = b"{}",
) -> Batch:
    return seal(
        topic,
        [payload] * count,
        [time + step * index for index in range(count)],
        producer=producer,
        first=first,
        machine="box",
        process="app 7",
        ids=ids,
        causes=causes,
    )


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def on_store(path: Path, test: Test) -> Recovered:
    """Run `test` on the store at `path`, opened and closed in order. Return what was recovered."""

    async def work() -> Recovered:
        store = SqliteStore(str(path))
        recovered = await store.open(now=1)
        try:
            await test(store)
        finally:
            await store.close()
        return recovered

    found: Recovered = run(work())
    return found


async def nothing(_: SqliteStore) -> None:
    pass


def put(*batches: Batch) -> Test:
    async def work(store: SqliteStore) -> None:
        for each in batches:
            await store.commit([each], [], [], now=10)

    return work


async def all_of(store: SqliteStore, topic: str) -> list[Stored]:
    found: list[Stored] = []
    while page := await store.read(topic, found[-1].stop if found else 0, 1 << 20):
        found += page
    return found


def kill(path: Path, test: Test, target: Path) -> None:
    """Run `test`, and leave in `target` what a process that was killed after it would have left."""

    async def copying(store: SqliteStore) -> None:
        await test(store)
        for name in os.listdir(path.parent):
            if name.startswith(path.name) and not name.endswith(("-shm", "-lock")):
                shutil.copy(path.parent / name, target / name)

    target.mkdir()
    on_store(path, copying)


def sql(path: Path, query: str, *values: Any) -> list[Any]:
    connection = apsw.Connection(str(path))
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


# --- batches ------------------------------------------------------------------------------------------------


def test_positions_follow_each_other_within_each_topic_and_over_restarts(path: Path) -> None:
    async def first(store: SqliteStore) -> None:
        stored = await store.commit([batch("a", 3), batch("b", 2), batch("a", 2, first=3)], [], [], now=5)
        assert [each and each.start for each in stored] == [0, 0, 3]

    async def second(store: SqliteStore) -> None:
        [stored] = await store.commit([batch("a", first=5)], [], [], now=6)
        assert stored is not None
        assert stored.start == 5

    on_store(path, first)
    recovered = on_store(path, second)
    assert {each.name: each.end for each in recovered.topics} == {"a": 5, "b": 2}


def test_what_is_read_is_byte_for_byte_what_was_committed(path: Path) -> None:
    given = [batch("a", count, first=count * 10, payload=b'"%d"' % count) for count in (1, 5, 3)]

    async def look(store: SqliteStore) -> None:
        assert [each.batch.data for each in await all_of(store, "a")] == [each.data for each in given]

    on_store(path, put(*given))
    on_store(path, look)


def test_a_read_begins_with_the_batch_that_holds_the_position_and_keeps_to_the_bytes_asked_for(path: Path) -> None:
    async def look(store: SqliteStore) -> None:
        await put(*(batch("a", 10, first=10 * each) for each in range(5)))(store)
        size = len(batch("a", 10).data)
        assert [each.start for each in await store.read("a", 13, 1)] == [10]
        assert [each.start for each in await store.read("a", 13, 2 * size)] == [10, 20]
        assert [each.start for each in await store.read("a", 49, 1 << 20)] == [40]
        assert await store.read("a", 50, 1 << 20) == []
        assert await store.read("nowhere", 0, 1 << 20) == []

    on_store(path, look)


def test_many_small_batches_are_read_page_by_page(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_READ_ROWS", 7)

    async def look(store: SqliteStore) -> None:
        await store.commit([batch("a", first=each) for each in range(100)], [], [], now=5)
        assert [each.start for each in await all_of(store, "a")] == list(range(100))

    on_store(path, look)


def test_seek_gives_the_first_event_fired_at_or_after_a_time(path: Path) -> None:
    async def look(store: SqliteStore) -> None:
        await put(batch("a", 3, time=100, step=10), batch("a", 3, first=3, time=105, step=10))(store)
        assert await store.seek("a", 0) == 0
        assert await store.seek("a", 111) == 2  # 100 110 120 | 105 115 125
        assert await store.seek("a", 121) == 5
        assert await store.seek("a", 126) == 6
        assert await store.seek("nowhere", 0) == 0

    on_store(path, look)


def test_find_knows_given_and_made_ids_and_no_others(path: Path) -> None:
    made = batch("a", 3, first=7)

    async def look(store: SqliteStore) -> None:
        await put(batch("b", 2, ids=["x", None]), made)(store)
        assert await store.find("x") == ("b", 0)
        assert await store.find(batch("b", 2).id(1)) == ("b", 1)
        assert await store.find(made.id(2)) == ("a", 2)
        assert await store.find(batch("a", first=10).id(0)) is None
        assert await store.find(batch("a", first=7, time=10**12).id(0)) is None  # of another time, so another event
        assert await store.find("y") is None

    on_store(path, look)


@pytest.mark.parametrize("cause", ["earlier", make_id(10**18, 5, 7)], ids=["given", "made"])
def test_caused_gives_the_batches_that_an_event_caused_and_no_others(path: Path, cause: str) -> None:
    about = [Cause("event", cause), Cause("event", make_id(10**18, 5, 8)), Cause.user(cause)]

    async def look(store: SqliteStore) -> None:
        for each in range(40):
            for topic in ("a", "b"):
                causes: list[Cause | None] = [about[each % 3]]
                await put(batch(topic, first=each, time=each, causes=causes))(store)
        whole, more = await store.caused([cause], None, 1 << 20)
        told = [(each.batch.header.topic, each.start) for each in whole]
        assert (told, more) == ([(topic, each) for each in range(0, 40, 3) for topic in ("a", "b")], False)
        part, more = await store.caused([cause], BatchPlace(0, "b", 30), 1 << 20)
        assert [(each.batch.header.topic, each.start) for each in part] == told[told.index(("b", 30)) :]
        one, more = await store.caused([cause], None, 1)
        assert (len(one), more) == (1, True)
        two, more = await store.caused([cause], None, 1 << 20, 2)
        assert (len(two), more) == (2, True)
        assert await store.trim("a", Spans(), 20, None) == 20
        left, _ = await store.caused([cause], None, 1 << 20)
        assert [each.start for each in left if each.batch.topic == "a"] == [21, 24, 27, 30, 33, 36, 39]
        assert await store.caused(["nobody"], None, 1 << 20) == ([], False)

    on_store(path, look)
    assert list(check(str(path))) == []


# --- only once ----------------------------------------------------------------------------------------------


def test_an_id_given_before_is_left_out(path: Path) -> None:
    async def look(store: SqliteStore) -> None:
        await put(batch("a", 2, ids=["x", "y"]))(store)
        [some, none, elsewhere] = await store.commit(
            [
                batch("a", 3, producer=2, ids=["x", "z", "z"]),
                batch("a", 1, producer=3, ids=["z"]),
                batch("b", 1, producer=4, ids=["x"]),
            ],
            [],
            [],
            now=5,
        )
        assert some is not None
        assert (some.start, [some.batch.id(0)], len(some.batch)) == (2, ["z"], 1)
        assert none is None
        assert elsewhere is not None

    on_store(path, look)


def test_an_id_that_was_made_is_known_when_somebody_gives_it(path: Path) -> None:
    made = batch("a", 3, first=7)

    async def look(store: SqliteStore) -> None:
        [_, same] = await store.commit([made, batch("a", producer=9, ids=[made.id(1)])], [], [], now=5)
        assert same is None
        [other] = await store.commit([batch("b", producer=9, ids=[made.id(1)])], [], [], now=5)
        assert other is not None

    on_store(path, look)


def test_a_batch_sent_again_is_not_stored_again_not_even_after_a_restart(path: Path) -> None:
    async def again(store: SqliteStore) -> None:
        assert await store.commit([batch("a", 5)], [], [], now=5) == [None]
        [rest] = await store.commit([batch("a", 7)], [], [], now=5)
        assert rest is not None
        assert (rest.start, len(rest.batch), rest.batch.id(0)) == (5, 2, batch("a", 7).id(5))

    on_store(path, put(batch("a", 5)))
    on_store(path, again)


def test_what_has_been_trimmed_may_be_fired_again(path: Path) -> None:
    async def look(store: SqliteStore) -> None:
        await put(batch("a", 2, ids=["x", "y"]))(store)
        assert await store.trim("a", Spans(), before=10**18, max_bytes=None) == 2
        [stored] = await store.commit([batch("a", producer=2, ids=["x"])], [], [], now=5)
        assert stored is not None
        assert stored.start == 2

    on_store(path, look)
    assert check(str(path)) == []


_ids = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4)


@settings(max_examples=settings().max_examples // 2, deadline=None)
@hypothesis.given(
    st.lists(st.lists(st.lists(st.sampled_from("abcdef"), min_size=1, max_size=4), max_size=3), max_size=6)
)
def test_no_id_is_ever_in_a_topic_twice(given: list[list[list[str]]]) -> None:
    """Whatever batches are committed, together or one after another: the first of each id is kept, in order."""

    async def look(store: SqliteStore) -> None:
        numbers = iter(range(1000))
        for commit in given:
            await store.commit(
                [batch("t", len(ids), first=10 * next(numbers), ids=list(ids)) for ids in commit], [], [], 1
            )
        found = [each.batch.id(index) for each in await all_of(store, "t") for index in range(len(each.batch))]
        assert found == list(dict.fromkeys(id for commit in given for ids in commit for id in ids))

    with tempfile.TemporaryDirectory() as folder:
        on_store(Path(folder) / "wind.db", look)


@pytest.fixture
def steps() -> Iterator[list[int]]:
    """Hundreds of steps of SQLite's virtual machine so far, one item for each."""
    counted: list[int] = []

    def count() -> bool:
        counted.append(1)
        return False

    def follow(connection: apsw.Connection) -> None:
        connection.set_progress_handler(count, 100)

    apsw.connection_hooks.append(follow)
    yield counted
    apsw.connection_hooks.remove(follow)


def test_looking_up_ids_takes_as_many_steps_however_many_there_are(tmp_path: Path, steps: list[int]) -> None:
    async def look(store: SqliteStore) -> None:
        taken = []
        for number in range(20):
            made, same = (batch("t", 1_000, ids=[f"{number}.{index}" for index in range(1_000)]) for _ in range(2))
            before = len(steps)
            assert await store.commit([made, same], [], [], 1) == [Stored(1_000 * number, made, ANY), None]
            taken.append(len(steps) - before)
        assert 0 < max(taken[-3:]) < 2 * min(taken[:3])

    on_store(tmp_path / "wind.db", look)


# --- purposes -----------------------------------------------------------------------------------------------


def replayed(recovered: Recovered) -> dict[tuple[str, str], Any]:
    states = {(each.topic, each.purpose): State.restore(each) for each in recovered.snapshots}
    for change in recovered.changes:
        key = change.topic, change.purpose
        states.setdefault(key, State(*key)).apply(change)
    return {key: state.snapshot() for key, state in states.items()}


_spans = st.lists(st.integers(0, 30), max_size=4).map(lambda positions: Spans.of(positions))
_change = st.builds(
    Change,
    topic=st.just("t"),
    purpose=st.sampled_from("pq"),
    created=st.none() | st.builds(Creation, st.integers(0, 5), st.integers(0, 5)),
    retired=st.sampled_from([False, False, False, True]),
    stated=st.lists(st.builds(Statement, st.integers(1, 3), st.just("direct")), max_size=1),
    reopened=_spans.map(lambda spans: spans.edges),
    redriven=_spans.map(lambda spans: spans.edges),
    discarded=_spans.map(lambda spans: spans.edges),
    reach=st.integers(0, 30),
    waiting=st.lists(st.builds(Waiting, st.integers(0, 30), st.integers(0, 3), st.just(9)), max_size=2),
    settled=_spans,
    skipped=_spans,
    dead=st.lists(
        st.builds(Letter, st.integers(0, 30), st.just(2), st.just(3), st.sampled_from("xy"), st.integers(1, 3)),
        max_size=2,
    ),
    retried=st.integers(0, 2),
)
_commit = st.tuples(st.lists(_change, max_size=3), st.sets(st.sampled_from("pq"), max_size=2))


@settings(max_examples=settings().max_examples // 2, deadline=None)
@hypothesis.given(st.lists(_commit, max_size=12), st.integers(1, 4))
def test_snapshots_and_changes_give_back_the_state(given: list[tuple[list[Change], set[str]]], kept: int) -> None:
    """What a store recovers, replayed, is the state that the live changes made; so are the dead letters' rows."""
    states: dict[tuple[str, str], State] = {}
    dead: dict[tuple[str, str], dict[int, Letter]] = {}

    async def live(store: SqliteStore) -> None:
        for changes, wanted in given:
            for change in changes:
                key = change.topic, change.purpose
                if change.retired:
                    states.pop(key, None)
                    dead.pop(key, None)
                    continue
                states.setdefault(key, State(*key)).apply(change)
                letters = dead.setdefault(key, {})
                for edges in (change.reopened, change.redriven, change.discarded):
                    for position in Spans(edges).positions():
                        letters.pop(position, None)
                letters.update({letter.position: letter for letter in change.dead})
            snapshots = [state.snapshot() for (_, purpose), state in states.items() if purpose in wanted]
            await store.commit([], changes, snapshots, now=5)

    async def look(store: SqliteStore) -> None:
        for purpose in "pq":
            expected = dead.get(("t", purpose), {})
            letters = await store.dead("t", purpose, 0, Spans((0, 1 << 60)))
            assert letters == [expected[position] for position in sorted(expected)]

    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(commits, "_COMMITS_KEPT", kept)
        path = Path(folder) / "wind.db"
        # A retired change that does more leaves nothing: it is how the core writes them.
        for changes, _ in given:
            for change in changes:
                if change.retired:
                    change.dead = []
        on_store(path, live)
        recovered = on_store(path, look)
        assert replayed(recovered) == {key: state.snapshot() for key, state in states.items()}


def test_commits_that_every_snapshot_supersedes_are_deleted(path: Path) -> None:
    state = State("t", "p")

    async def work(store: SqliteStore) -> None:
        for number in range(3 * commits._COMMITS_KEPT):
            change = Change("t", "p", settled=Spans([number, number + 1]))
            state.apply(change)
            await store.commit([], [change], [state.snapshot()] if number % 50 == 0 else [], now=number)

    on_store(path, work)
    [(count,)] = sql(path, "SELECT count(*) FROM commits")
    assert count <= commits._COMMITS_KEPT + 50
    assert replayed(on_store(path, nothing)) == {("t", "p"): state.snapshot()}
    assert check(str(path)) == []


# --- history ------------------------------------------------------------------------------------------------


def test_trimming_spares_every_batch_with_an_event_that_is_pinned(path: Path) -> None:
    async def look(store: SqliteStore) -> None:
        await put(*(batch("a", 10, first=10 * each, time=100 * each + 1) for each in range(6)))(store)
        pinned = Spans.of([15, 39, 40])
        assert await store.trim("a", pinned, before=450, max_bytes=None) == 20
        assert [each.start for each in await all_of(store, "a")] == [10, 30, 40, 50]
        assert await store.trim("a", pinned, before=450, max_bytes=None) == 0
        left = sum(len(each.batch.data) for each in await all_of(store, "a"))
        assert await store.history("a") == (40, left)

    on_store(path, look)
    assert check(str(path)) == []
    on_store(path, nothing)


def test_trimming_to_a_size_deletes_the_oldest_that_may_go(path: Path) -> None:
    async def look(store: SqliteStore) -> None:
        await put(*(batch("a", 10, first=10 * each) for each in range(6)))(store)
        size = len(batch("a", 10).data)
        assert await store.trim("a", Spans([0, 1]), before=None, max_bytes=3 * size + 1) == 30
        assert [each.start for each in await all_of(store, "a")] == [0, 40, 50]
        assert await store.trim("a", Spans(), before=None, max_bytes=0) == 30
        assert await store.trim("nowhere", Spans(), before=1, max_bytes=0) == 0

    on_store(path, look)
    assert check(str(path)) == []


def test_positions_are_not_used_again_when_all_has_been_trimmed(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await put(batch("a", 10))(store)
        await store.trim("a", Spans(), before=10**18, max_bytes=None)

    on_store(path, work)
    recovered = on_store(path, put(batch("a", 2, first=10)))
    assert recovered.topics[0].end == 10
    assert on_store(path, nothing).topics[0].end == 12
    assert check(str(path)) == []


def test_trimming_goes_in_parts_and_commits_go_on_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_TRIM_ROWS", 3)

    async def work(store: SqliteStore) -> None:
        await put(*(batch("a", first=each) for each in range(20)))(store)
        parts = []
        for first in range(20, 27):
            trimmed, _ = await asyncio.gather(
                store.trim("a", Spans([20, 1 << 60]), before=10**18, max_bytes=None),
                store.commit([batch("a", first=first)], [], [], now=5),
            )
            parts.append(trimmed)
        assert parts == [3, 3, 3, 3, 3, 3, 2]
        assert await store.trim("a", Spans([20, 1 << 60]), before=10**18, max_bytes=None) == 0
        assert await store.history("a") == (7, 7 * len(batch("a").data))
        assert [each.start for each in await all_of(store, "a")] == list(range(20, 27))

    on_store(path, work)
    assert check(str(path)) == []


def test_how_much_a_topic_keeps_is_remembered_and_none_leaves_it(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await store.topic("a", 5, UNSET)
        await store.topic("a", UNSET, 6)
        await put(batch("a"), batch("b"))(store)

    on_store(path, work)
    found = {each.name: (each.end, each.keep_ns, each.keep_bytes) for each in on_store(path, nothing).topics}
    assert found == {"a": (1, 5, 6), "b": (1, None, None)}


# --- opening ------------------------------------------------------------------------------------------------


def test_opening_tells_a_store_that_was_closed_from_one_that_was_interrupted(path: Path, tmp_path: Path) -> None:
    kill(path, put(batch("a", time=77)), tmp_path / "killed")
    recovered = on_store(tmp_path / "killed/wind.db", nothing)
    assert (recovered.clean, recovered.now) == (False, 10)
    assert on_store(path, nothing).clean


def test_the_second_process_is_refused_and_told_who_has_it(path: Path) -> None:
    program = (
        "import asyncio, sys\n"
        "from solarwind.store.sqlite import SqliteStore\n"
        f"asyncio.run(SqliteStore({str(path)!r}).open(0))\n"
        "print('open', flush=True)\n"
        "sys.stdin.read()\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdin=-1, stdout=-1, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "open\n"
        with pytest.raises(StoreError) as refused:
            on_store(path, nothing)
        with pytest.raises(StoreError):
            check(str(path), accept_loss=True)
        assert check(str(path)) == []  # looking is allowed
        other.kill()
    text = str(refused.value)
    assert text.startswith(f"{path} is in use by process {other.pid} (python")
    assert "since 1970-01-01 00:00:00 UTC: stop it, or share the store with `solarwind serve --data" in text
    assert not on_store(path, nothing).clean  # whoever was killed holds nothing


def test_room_is_set_aside_for_a_full_disk(path: Path) -> None:
    on_store(path, nothing)
    assert os.path.getsize(f"{path}-reserve") == 4 << 20
    assert os.stat(f"{path}-reserve").st_blocks * 512 >= 4 << 20


def test_two_stores_in_one_process_are_refused_too(path: Path) -> None:
    async def twice(_: SqliteStore) -> None:
        with pytest.raises(StoreError, match="in use by this very process"):
            await SqliteStore(str(path)).open(0)

    on_store(path, twice)


def test_a_newer_format_is_refused_and_left_alone(path: Path) -> None:
    on_store(path, put(batch("a")))
    sql(path, "PRAGMA user_version = 15")
    before = path.read_bytes(), sorted(os.listdir(path.parent))
    with pytest.raises(
        StoreError, match=r"written in format 15 by a newer Solar Wind, this one reads format 14: upgrade"
    ):
        on_store(path, nothing)
    assert before == (path.read_bytes(), sorted(os.listdir(path.parent)))


@pytest.mark.parametrize("kind", ["text", "sqlite", "folder", "under a file", "nowhere"])
def test_what_is_no_store_is_refused_in_one_sentence_and_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "wind.db"
    if kind == "text":
        path.write_text("dear diary, " * 100)
    elif kind == "sqlite":
        sql(path, "CREATE TABLE mine(a)")
    elif kind == "folder":
        path.mkdir()
    elif kind == "under a file":
        (tmp_path / "file").write_text("")
        path = tmp_path / "file/wind.db"
    else:
        path = tmp_path / "nowhere/wind.db"
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(StoreError, match=r"^expected .* but .*: (name|create)") as refused:
        on_store(path, nothing)
    assert "\n" not in str(refused.value)
    assert sorted(os.listdir(tmp_path)) == before


def test_a_folder_that_cannot_be_written_to_is_refused() -> None:
    """As another user where the tests run as root, whom nothing stops."""
    program = (
        "import os, sys; from solarwind.errors import StoreError; from solarwind.store import paths\n"
        "os.geteuid() or os.setuid(65534)\n"
        "try: paths.refuse_path(sys.argv[1])\n"
        "except StoreError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # not below pytest's own folders, which no other user may enter
        os.chmod(folder, 0o555)
        command = [sys.executable, "-c", program, f"{folder}/wind.db"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert f"{folder} is read-only" in found


def test_nothing_can_be_done_with_a_store_that_is_not_open(path: Path) -> None:
    store = SqliteStore(str(path))
    for call in (store.commit([], [], [], 1), store.read("a", 0, 1), store.trim("a", Spans(), 1, 1), store.find("x")):
        with pytest.raises(StoreError, match="is not open"):
            run(call)
    run(store.close())


def test_a_commit_that_somebody_else_wrote_stops_the_store(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await put(batch("a"))(store)
        sql(path, "INSERT INTO commits VALUES (2, 0, 0, x'90', x'', 0)")
        for _ in range(2):
            with pytest.raises(StoreError, match=r"commit 2 is there already.*somebody else has written to it"):
                await store.commit([batch("b")], [], [], now=5)

    on_store(path, work)


@pytest.mark.long
def test_a_large_backlog_opens_in_few_steps(path: Path, steps: list[int]) -> None:
    """Ten million events in batches of a thousand. The bodies are small here: only the newest are ever read."""
    one = batch("a", 1000, payload=b"1")
    body = len(one.data) - 1000

    async def work(store: SqliteStore) -> None:
        for number in range(20):
            firsts = [1000 * (500 * number + index) for index in range(500)]
            given = [Batch(msgspec.structs.replace(one.header, first=first), one.data, body) for first in firsts]
            await store.commit(given, [], [], now=5)

    on_store(path, work)
    before = len(steps)

    async def look(store: SqliteStore) -> None:
        assert 0 < len(steps) - before < 30_000, "hundreds: fewer than a third of a step for each event"

    assert on_store(path, look).topics[0].end == 10_000_000


def test_the_log_stays_bounded_under_continuous_load(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writeahead, "_LOG_BYTES", 1 << 20)
    monkeypatch.setattr(writeahead, "_LOG_MAX_BYTES", 4 << 20)
    written = 0

    async def work(store: SqliteStore) -> None:
        nonlocal written
        payload = b"x" * 50_000
        for number in range(800):
            await store.commit([batch("a", first=number, payload=payload)], [], [], now=5)
            if number % 10 == 0:
                await store.read("a", number, 1)
            written += len(payload)
            assert os.path.getsize(f"{path}-wal") < 8 << 20

    on_store(path, work)
    assert written > 30 << 20
    assert not os.path.exists(f"{path}-wal")


def test_the_log_stays_short_while_commits_are_small(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        for number in range(400):
            await store.commit([batch("a", first=number, ids=[f"{number}"])], [], [], now=5)
        assert 3 << 20 < os.path.getsize(f"{path}-wal") < 8 << 20

    on_store(path, work)


# --- backup and check ---------------------------------------------------------------------------------------


def test_a_backup_is_of_one_moment_while_commits_go_on(path: Path, tmp_path: Path) -> None:
    copies = [tmp_path / f"copy{number}.db" for number in range(3)]

    async def work(store: SqliteStore) -> None:
        done = asyncio.Event()

        async def load() -> None:
            number = 0
            while not done.is_set():
                change = Change("a", "p", settled=Spans([2 * number, 2 * number + 2]))
                await store.commit([batch("a", 2, first=2 * number, payload=b"x" * 5000)], [change], [], now=5)
                number += 1

        loading = asyncio.create_task(load())
        for copy in copies:
            await store.backup(str(copy))
        done.set()
        await loading

    on_store(path, work)
    for copy in copies:
        assert check(str(copy)) == []
        recovered = on_store(copy, nothing)
        assert recovered.clean
        settled = sum(len(change.settled) for change in recovered.changes)
        assert settled == sum(each.end for each in recovered.topics)


def test_a_backup_refuses_to_overwrite(path: Path, tmp_path: Path) -> None:
    on_store(path, nothing)
    (tmp_path / "taken").write_text("mine")
    with pytest.raises(StoreError, match="exists: name another, or remove it"):
        backup(str(path), str(tmp_path / "taken"))
    with pytest.raises(StoreError, match="there is none at"):
        backup(str(tmp_path / "nowhere.db"), str(tmp_path / "copy.db"))
    assert (tmp_path / "taken").read_text() == "mine"


def test_a_backup_put_beside_an_old_mark_opens(path: Path, tmp_path: Path) -> None:
    on_store(path, put(batch("a"), batch("a", first=1)))
    backup(str(path), str(tmp_path / "copy.db"))
    on_store(path, put(batch("a", first=2)))
    os.replace(tmp_path / "copy.db", path)
    assert on_store(path, nothing).topics[0].end == 2


def test_check_reads_everything_and_says_how_far_it_is(path: Path) -> None:
    on_store(path, put(*(batch("a", 10, first=10 * each) for each in range(5))))
    seen: list[tuple[int, int]] = []
    assert check(str(path), progress=lambda done, total: seen.append((done, total))) == []
    total = 5 * len(batch("a", 10).data)
    assert seen[-1] == (total, total)


def loaded(store: SqliteStore) -> Awaitable[None]:
    async def work() -> None:
        await put(*(batch("a", 10, first=10 * each, payload=b"x" * 100) for each in range(20)))(store)
        await store.commit(
            [batch("a", producer=2, ids=["x"])], [Change("a", "p", dead=[Letter(7, 1, 2, "no", 1)])], [], 5
        )

    return work()


def goes_on_without(path: Path, sentence: str, events: int) -> None:
    """Check that the damage is named, nothing else is touched, and accepting it is a way out."""
    assert any(sentence in finding for finding in check(str(path))), check(str(path))
    assert any(sentence in finding for finding in check(str(path), accept_loss=True))
    assert check(str(path)) == []

    async def look(store: SqliteStore) -> None:
        assert (await store.history("a"))[0] == events
        await put(batch("a", producer=5))(store)
        assert len(await all_of(store, "a")) > 0

    on_store(path, look)
    assert check(str(path)) == []


def test_a_flipped_bit_in_the_log_is_noticed_after_a_kill(path: Path, tmp_path: Path) -> None:
    """SQLite drops the rest of the log without a word. Opening is refused, and changes nothing."""
    kill(path, loaded, tmp_path / "killed")
    killed = tmp_path / "killed/wind.db"
    log = bytearray((tmp_path / "killed/wind.db-wal").read_bytes())
    log[len(log) // 2] ^= 1
    (tmp_path / "killed/wind.db-wal").write_bytes(log)
    for _ in range(2):
        with pytest.raises(
            StoreError, match=r"has lost its last \d+ commits with \d+ events since 1970.*--accept-loss"
        ):
            on_store(killed, nothing)
        assert (tmp_path / "killed/wind.db-wal").read_bytes() == log
    left = int(check(str(killed))[0].split("it ends at commit ")[1].split(",")[0])
    goes_on_without(killed, "has lost its last", 10 * left)


def test_a_store_that_lost_its_tail_is_refused(path: Path, tmp_path: Path) -> None:
    """An older copy of the database beside a newer mark."""
    on_store(path, put(batch("a")))
    shutil.copy(path, tmp_path / "old.db")
    on_store(path, put(batch("a", 4, first=1)))
    os.replace(tmp_path / "old.db", path)
    with pytest.raises(StoreError, match="lost its last 1 commits with 4 events"):
        on_store(path, nothing)
    goes_on_without(path, "lost its last 1 commits with 4 events", 1)


def test_a_batch_deleted_in_the_middle_is_noticed_at_once(path: Path) -> None:
    on_store(path, loaded)
    sql(path, "DELETE FROM batches WHERE start = 50")
    with pytest.raises(StoreError, match="has lost the events 50 to 59 of topic 'a'"):
        on_store(path, nothing)
    goes_on_without(path, "has lost the events 50 to 59 of topic 'a'", 191)


def test_batches_deleted_at_the_end_are_noticed_at_once(path: Path) -> None:
    on_store(path, loaded)
    sql(path, "DELETE FROM batches WHERE start >= 190")
    with pytest.raises(StoreError, match="201 events were accepted, but its topics end after 190"):
        on_store(path, nothing)
    goes_on_without(path, "topics end after 190", 190)


def test_a_changed_body_is_noticed_and_read_as_an_error(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    on_store(path, loaded)
    sql(path, "UPDATE batches SET data = CAST(replace(data, 'xx', 'xy') AS BLOB) WHERE start = 50")
    sentence = "the events 50 to 59 of topic 'a' are not what was written"
    with pytest.raises(StoreError, match=sentence):
        on_store(path, nothing)

    async def look(store: SqliteStore) -> None:
        with pytest.raises(StoreError, match=sentence):
            await store.read("a", 50, 1)
        assert [each.start for each in await store.read("a", 60, 1)] == [60]

    with monkeypatch.context() as patch:
        patch.setattr(inspection, "inspect_bodies", lambda *_, **__: iter(()))  # it is further back than opening looks
        on_store(path, look)
    goes_on_without(path, sentence, 191)


def test_a_changed_commit_and_a_changed_snapshot_are_noticed(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        state = State("a", "p")
        state.apply(Change("a", "p", created=Creation(0)))
        await store.commit([batch("a")], [], [state.snapshot()], now=5)
        await store.commit([], [Change("a", "p", settled=Spans([0, 1]))], [], now=5)

    on_store(path, work)
    sql(path, "UPDATE commits SET time = 7 WHERE number = 2")
    sql(path, "UPDATE snapshots SET number = 2")
    with pytest.raises(StoreError, match="commit 2 of"):
        on_store(path, nothing)
    assert len(check(str(path))) == 2
    goes_on_without(path, "the state of purpose 'p' on topic 'a'", 1)


def test_a_missing_mark_is_only_fine_after_a_clean_close(path: Path, tmp_path: Path) -> None:
    kill(path, loaded, tmp_path / "killed")
    os.unlink(f"{path}-mark")
    assert on_store(path, nothing).topics[0].end == 201
    os.unlink(tmp_path / "killed/wind.db-mark")
    with pytest.raises(StoreError, match=r"wind\.db-mark is missing"):
        on_store(tmp_path / "killed/wind.db", nothing)
    goes_on_without(tmp_path / "killed/wind.db", "wind.db-mark is missing", 201)


def test_ids_and_dead_letters_of_no_event_are_noticed(path: Path) -> None:
    on_store(path, loaded)
    sql(path, "UPDATE ids SET position = 900")
    sql(path, "UPDATE dead SET position = 901")
    found = check(str(path))
    assert len(found) == 3
    assert "the ids noted of the events" in found[0]
    assert "is of event 900" in found[1]
    assert "is event 901 of topic 'a', which is not there" in found[2]
    goes_on_without(path, "a dead letter of purpose 'p'", 201)


def test_check_changes_nothing(path: Path, tmp_path: Path) -> None:
    kill(path, loaded, tmp_path / "killed")

    def files() -> dict[str, bytes]:
        return {
            each.name: each.read_bytes() for each in (tmp_path / "killed").iterdir() if not each.name.endswith("-shm")
        }

    before = files()
    assert check(str(tmp_path / "killed/wind.db")) == []
    assert files() == before


def test_the_lock_says_who_in_words_for_machines_too(path: Path) -> None:
    async def look(_: SqliteStore) -> None:
        assert json.loads(Path(f"{path}-lock").read_text())["pid"] == os.getpid()

    on_store(path, look)
    assert not os.path.exists(f"{path}-lock")
