"""A cluster whose nodes can be cut off, as by a cable that is pulled: nobody is told, nothing arrives any more.

Each node is in a network namespace of its own, with two network cards: `routes`, to the other nodes, and `clients`, to
the process of the test. Their cables end in two switches, in one more namespace: pulling one is taking its end down.

                  this process ─┐
    n1 ── clients ── switch ────┤      n1 ── routes ── switch
    n2 ── clients ──────────────┤      n2 ── routes ────┤
    n3 ── clients ──────────────┘      n3 ── routes ────┘

Outside of them there is one more network card for as long as the cluster lives, with an address of those that RFC 2544
reserves for tests of networks. Nothing has to be cleared away: namespaces, cards and cables go with the last process
that has them open, which is this one. It takes the rights of an administrator of the network, so root's, or those of
whoever runs this under `unshare --map-root-user --net`.
"""

from __future__ import annotations

import os
import random
import shutil
import subprocess
from pathlib import Path
from typing import Any

from .servers import NatsCluster, NatsServer, Settings, Where

TOOLS = ("ip", "nsenter", "unshare")
CARD = "solarwind{}"
CLIENTS = "198.18.{}.{}"
ROUTES = "10.0.0.{}"
OURS = 254  # our own number among the clients
TRIES = 20


def missing() -> str:
    """Return why there can be no such cluster here, if so."""
    for each in TOOLS:
        if shutil.which(each) is None:
            return f"expected the program {each}, found none: install iproute2 and util-linux"
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if tried.returncode:
        return f"expected to be allowed to make networks, was not ({tried.stderr.strip()}): run as root"
    return ""


class Network:
    """A network namespace, which lives as long as it is open or a process is in it."""

    def __init__(self) -> None:
        made = subprocess.Popen(
            ["unshare", "--net", "sh", "-c", "echo; read _"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert made.stdin is not None
        assert made.stdout is not None
        made.stdout.readline()
        self.descriptor = os.open(f"/proc/{made.pid}/ns/net", os.O_RDONLY)
        made.communicate()
        self.ip("link set lo up")

    @property
    def path(self) -> str:
        return f"/proc/self/fd/{self.descriptor}"

    def ip(self, *commands: str) -> None:
        command = self.within(["ip", "-batch", "-"])
        subprocess.run(command, input="\n".join(commands).encode(), pass_fds=(self.descriptor,), check=True)

    def within(self, command: list[str]) -> list[str]:
        """Return the command that runs another there. Needs the descriptor open."""
        return ["nsenter", f"--net={self.path}", *command]

    def close(self) -> None:
        os.close(self.descriptor)


class Inside(Where):
    """The addresses of a server in a network of its own, where all ports are free."""

    def __init__(self, net: int, number: int) -> None:
        self.network = Network()
        self.address, self.routes = CLIENTS.format(net, number), ROUTES.format(number)
        self.port, self.route_port, self.monitor = 4222, 6222, 8222

    def within(self, command: list[str]) -> list[str]:
        return self.network.within(command)

    def open_files(self) -> tuple[int, ...]:
        return (self.network.descriptor,)

    def close(self) -> None:
        self.network.close()


class WiredCluster(NatsCluster):
    """Like any cluster, but that nodes can be cut off."""

    def __init__(self, folder: Path, *, nodes: int = 3, jetstream: Settings | bool = True, **settings: Any) -> None:
        self._hub = Network()
        self._hub.ip(*(f"link add {each} up type bridge" for each in ("clients", "routes")))
        net = self._plug_in()
        places = [Inside(net, number) for number in range(1, nodes + 1)]
        for number, where in enumerate(places, 1):
            self._wire(number, where)
        super().__init__(folder, jetstream=jetstream, places=places, **settings)

    def _plug_in(self) -> int:
        """Make this process a client in a network of its own, and return the network's number."""
        for net in random.sample(range(256), TRIES):
            card = CARD.format(net)
            added = ["ip", "link", "add", card, "type", "veth", "peer", "name", "ours", "netns", self._hub.path]
            if subprocess.run(added, capture_output=True, pass_fds=(self._hub.descriptor,)).returncode == 0:
                subprocess.run(["ip", "addr", "add", f"{CLIENTS.format(net, OURS)}/24", "dev", card], check=True)
                subprocess.run(["ip", "link", "set", card, "up"], check=True)
                self._hub.ip("link set ours master clients up")
                return net
        raise AssertionError(f"{TRIES} networks are taken")

    def _wire(self, number: int, where: Inside) -> None:
        for switch in ("clients", "routes"):
            command = f"link add {switch}{number} type veth peer name {switch} netns {where.network.path}"
            both = (self._hub.descriptor, where.network.descriptor)
            subprocess.run(self._hub.within(["ip", *command.split()]), pass_fds=both, check=True)
            self._hub.ip(f"link set {switch}{number} master {switch} up")
        where.network.ip(
            f"addr add {where.address}/24 dev clients",
            f"addr add {where.routes}/24 dev routes",
            "link set clients up",
            "link set routes up",
        )

    def cut_off(self, node: NatsServer, *, from_clients: bool = False) -> None:
        """Cut a node off from the other nodes, or from all processes."""
        self._pull(node, "routes", "down")
        if from_clients:
            self._pull(node, "clients", "down")

    def heal(self, node: NatsServer) -> None:
        for switch in ("routes", "clients"):
            self._pull(node, switch, "up")

    def _pull(self, node: NatsServer, switch: str, state: str) -> None:
        self._hub.ip(f"link set {switch}{self.nodes.index(node) + 1} {state}")

    async def close(self) -> None:
        await super().close()
        self._hub.close()
