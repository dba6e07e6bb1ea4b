"""Every place where a task, a thread, a timer or a callback begins, and how an unexpected error in it is noticed.

`test_arrows.py` compares the list with the code, so that whatever is new gets an owner. The best way is `Tasks`
(`engine/tasks.py`), whose own tasks need no entry here: `begin` for what its owner depends on, `spawn` for what it does
not, `guard` for the callback of a timer. The tests that make each of them raise are `test_supervision.py` here, and in
`server/`, `cluster/` and `cli/`.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator

from sources import MODULES, ROOT

STARTS = {
    *("create_task", "ensure_future", "run_coroutine_threadsafe", "call_soon", "call_soon_threadsafe", "call_later"),
    *("call_at", "add_done_callback", "add_reader", "add_signal_handler", "run_in_executor", "to_thread", "Thread"),
    *("Timer", "create_subprocess_exec"),
}

PLACES = {
    "Tasks: its owner goes on or ends": """
        engine.tasks:Tasks._start
        engine.alarm:Alarm.set
        engine.alarm:Wakeup.set
        engine.local:LocalEngine._commit_soon
        engine.local:LocalEngine._commit_in_time
    """,
    "who began it awaits it, and gets the error": """
        cli.serve:Service.run
        cli.serve:_first
        cli.supervisor:Child._live
        cli.top_view:_ask
        cli.top_view:_keys
        cli.supervisor:Supervisor._begun
        cluster.engine:NatsEngine._client
        cluster.engine:NatsEngine.start
        cluster.owners:Owners.while_owner
        cluster.tail:Tail._make
        engine.files:read_file
        engine.files:write_file
        contrib.django.service:_threads_work
        outbox.sqlite:SqliteLane._on_thread
        outbox.sqlite:SqliteLane.close
        lifecycle:_complete
        lifecycle:_starts
        lifecycle:_until_over
        lifecycle:serve
        loops:from_thread
        loops:on_loop
        server.streams:StreamResponse.__call__
        server.streams:end_all
        server.gzip_stream:Piece.packed
        server.asyncapi:asyncapi
        server.health:metrics
        server.take:Takes._collect
        server.targets:Dialer._look_up
        server.targets:resolve
        service.bound:_Thread.live
        service.receipts:_wait_in_thread
        store.threads:on_thread
        store.threads:_work
        store.sqlite:SqliteStore.backup
        wind:SolarWind._begin_stop
        wind:SolarWind._end
        wind:SolarWind.start
        wind:SolarWind.stop
    """,
    "it catches whatever comes, logs it, and ends what it belongs to": """
        cli.stdin:Input.__enter__
        lifecycle:LoopThread.__init__
        peer.client:Client._send
        peer.riding:Rides.wait
        peer.connection:Connection._answer
        peer.connection:Connection._flush_soon
        peer.inbound:Inbound.add
        server.http11:Http11._begin
        server.http11:Http11._read
        server.websocket:AsgiWebSocket.run
        service.runner:Runner._on_thread.job
        threads:Threads._start
        store.sqlite:SqliteStore._after_commit
        store.writeahead:WriteAheadLog.bound
    """,
    "its end is looked at by a callback, which logs it": """
        service.runner:Runner.wake
        wind:SolarWind._spawn
        wind:SolarWind._start_joining
    """,
    "it calls one end of a link in this process, which catches whatever comes": """
        cluster.link:MemoryLink.abort
        cluster.link:MemoryLink.close
        cluster.link:MemoryLink.send
        cluster.link:_Back.abort
        cluster.link:_Back.close
        cluster.link:_Back.send
    """,
    "it begins the next one first, so that it goes on; asyncio logs the error": """
        peer.heartbeat:Heartbeat.begin
        service.consumer:Consumer._beat_later
        service.consumer:Consumer._progress
        service.consumer:Consumer.deliver
    """,
    "what it does is done anew in time without it: a lease ends, a report follows; asyncio logs the error": """
        cluster.link:NatsTransport._reached_nobody
        cli.supervisor:Child.keep
        server.listener:Listener._accept
        server.listener:Listener._accept_again
        server.listener:Listener.start
        server.take:_Taking.deliver
        service.consumer:Consumer.note_fired
        service.runner:Runner._replace
    """,
    "it only sets a future or an event, begins a task that has an owner, counts or logs": """
        cli.reach:on_signals
        cli.supervisor:Supervisor.run
        cluster.engine:NatsEngine._start
        cluster.engine:NatsEngine._start_client
        cluster.engine:NatsEngine.submit
        cluster.owner:Owner.start
        cluster.owners:Owners._begin
        contrib.otel:_Instrumentation.sent
        engine.clock:SteadyClock.call_at
        engine.history:Trimmer._set_timer
        engine.local:LocalEngine._store_failed
        engine.local:LocalEngine.start
        lifecycle:Life._end_requests
        lifecycle:LoopThread.stop
        lifecycle:Signals._signalled
        logs:LimitedLog._set_timer
        outbox.relay:Relay._withdraw
        peer.client:Client.start
        peer.connection:Connection._submit
        peer.time_slices:TimeSlices._turn
        peer.time_slices:TimeSlices._wait
        peer.time_slices:TimeSlices.spend
        server.asgi:Server.leave
        server.host:ServerHost.begin
        server.take:Takes._runs_on
        service.buffer:ProducerBuffer.send
        service.firing:Firing._give_up_later
        service.firing:Firing._limit
        service.settling:wait_idle
        service.timed:timed.call_in_time
        shutdown:Shutdown._came
        shutdown:Shutdown._look
        wind:SolarWind._on_loop
        wind:SolarWind.listen.leave_soon
    """,
    "it ends a connection or a process": """
        cli.__init__:_leave_stuck_threads
        cli.supervisor:Child.hurry
        server.http11:Http11._let_go_soon
        server.http11:Http11._look
        server.http11:Http11.complete
        server.http11:Http11.connection_made
        server.http11:Http11.pause_writing
        server.http11:Http11.regulate
        server.tls:Tls._refuse
        server.tls:Tls.connection_made
        server.websocket:WebSocket._close_soon
        service.runner:Runner.leave_behind
    """,
}


def known() -> set[str]:
    """Return the places of the list."""
    return {place for places in PLACES.values() for place in places.split()}


def found() -> set[str]:
    """Return the places in the code, each as `module:function`."""
    places: set[str] = set()
    for path in MODULES:
        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
        source = path.read_text()
        if not module.startswith("testing.") and ("submit" in source or any(each in source for each in STARTS)):
            places.update(f"{module}:{function}" for function in _starting(ast.parse(source), ()))
    return places


def _starting(node: ast.AST, within: tuple[str, ...]) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        inside = within
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            inside = (*within, child.name)
        if isinstance(child, ast.Call) and _starts(child.func):
            yield ".".join(within)
        yield from _starting(child, inside)


def _starts(called: ast.expr) -> bool:
    if isinstance(called, ast.Attribute):
        on_thread = called.attr == "submit" and "thread" in ast.unparse(called.value)
        return called.attr in STARTS or on_thread
    return isinstance(called, ast.Name) and called.id in STARTS
