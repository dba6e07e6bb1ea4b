"""What lies where: the names of streams and subjects, and which topic is in which of them. See docs/NATS.md.

SOLARWIND_<ns>_<p>      solarwind.<ns>.<p>.<kind>.<via>.<who>.<topic>     one message a batch
SOLARWIND_<ns>_state    solarwind.<ns>.state.<p>.log.commit               one message a commit of the owner's
                        solarwind.<ns>.state.<p>.log.track.<hash>.<track> snapshots: the last one counts
                        solarwind.<ns>.state.<p>.log.topic.<topic>
                        solarwind.<ns>.state.<p>.kept.dead.<hash>.<range> the texts of dead letters
                        solarwind.<ns>.state.<p>.kept.notes.<part>.<topic> what was noted about events
                        solarwind.<ns>.state.<p>.kept.index.<topic>       which event is where
                        solarwind.<ns>.state.<p>.kept.ids.<part>.<topic>  which batches have to do with which ids
                        solarwind.<ns>.state.<p>.kept.due.inbox           the due-log: what is not sorted yet,
                        solarwind.<ns>.state.<p>.kept.due.time.<key>      its pages by due time,
                        solarwind.<ns>.state.<p>.kept.due.id.<key>        and those that find a place by an id
                        solarwind.<ns>.state.<p>.kept.due.of.<key>        or by a topic, and count its events
KV_SOLARWIND_<ns>       $KV.SOLARWIND_<ns>.settings, .owner.<p>           a key-value bucket
                        $KV.SOLARWIND_<ns>.definition.<kind>.<hash>
                        solarwind.<ns>.live.heartbeat, .hello, .node.<node>.>, .client.<link>  not stored
"""

from __future__ import annotations

from hashlib import sha256
from zlib import crc32

import msgspec

from ..batch import Batch
from ..columns import Header
from .address import NamespaceSettings

FIRED, CAUSED = "fired", "caused"
DIRECT, COPIED = "direct", "copied"
ANYBODY = "*.*"
_ROOT = "solarwind"
_DELAYED = "due-"  # begins the name of a producer


class Layout(msgspec.Struct, frozen=True):
    """The names of one namespace."""

    namespace: str
    settings: NamespaceSettings

    # Events -------------------------------------------------------------------------------------------

    def partition(self, topic: str) -> int:
        """Return the number of the stream that a topic is in."""
        words = self.settings.words
        start = ".".join(topic.split(".")[:words]) if words else topic
        return crc32(start.encode()) % self.settings.streams

    def events_stream(self, partition: int) -> str:
        return f"SOLARWIND_{self.namespace}_{partition}"

    def events_subjects(self, partition: int) -> str:
        return f"{_ROOT}.{self.namespace}.{partition}.*.*.*.*.>"

    def events_of(
        self, partition: int, *, kind: str = "*", via: str = "*", who: str = ANYBODY, topic: str = ">"
    ) -> str:
        return f"{_ROOT}.{self.namespace}.{partition}.{kind}.{via}.{who}.{topic}"

    def event_subject(self, batch: Batch, via: str, who: str) -> str:
        header = batch.header
        caused = any(cause.kind == "event" for cause in header.causes or ())
        kind = CAUSED if caused or via != DIRECT else FIRED
        return self.events_of(self.partition(header.topic), kind=kind, via=via, who=who, topic=header.topic)

    # State --------------------------------------------------------------------------------------------

    @property
    def state_stream(self) -> str:
        return f"SOLARWIND_{self.namespace}_state"

    @property
    def state_subjects(self) -> str:
        return f"{_ROOT}.{self.namespace}.state.>"

    def log(self, partition: int, rest: str = ">") -> str:
        return f"{_ROOT}.{self.namespace}.state.{partition}.log.{rest}"

    def kept(self, partition: int, rest: str = ">") -> str:
        return f"{_ROOT}.{self.namespace}.state.{partition}.kept.{rest}"

    # The bucket, and what is not stored ---------------------------------------------------------------

    @property
    def bucket(self) -> str:
        return f"SOLARWIND_{self.namespace}"

    @property
    def bucket_stream(self) -> str:
        return f"KV_{self.bucket}"

    def key(self, key: str) -> str:
        return f"$KV.{self.bucket}.{key}"

    def definition(self, kind: str, name: str) -> str:
        return self.key(f"definition.{kind}.{sha256(name.encode()).hexdigest()[:32]}")

    def live(self, rest: str) -> str:
        return f"{_ROOT}.{self.namespace}.live.{rest}"


def producer_name(header: Header, *, was_delayed: bool = False) -> str:
    """Return two words: the producer, and the author that numbers its events. What was delayed comes out of the order
    of the numbers, so it has words of its own."""
    return f"{_DELAYED * was_delayed}{header.producer:x}.{header.author.hex() or '-'}"


def any_producer_name(producer: int, *, was_delayed: bool = False) -> str:
    """Return the same with any author."""
    return f"{_DELAYED * was_delayed}{producer:x}.*"


def id_name(id: str) -> str:
    """Return the word for an id that a caller gave: its hash, since it may be any text."""
    return f"id.{sha256(id.encode()).hexdigest()[:32]}"


def forwarded_by(partition: int) -> str:
    return f"from-{partition}"


def purpose_name(topic: str, purpose: str) -> str:
    """Return the word for a purpose in a subject: its hash, with its topic's, since it may be any text."""
    return sha256(f"{topic}\n{purpose}".encode()).hexdigest()[:32]
