"""The operations on the schemas of payloads: a part of the table in `operations.py`."""

from __future__ import annotations

from .engine import merging
from .engine.operations import Operations
from .engine.request import Cli, Http, Operation, Restated


class Describing:
    """The operations on schemas, of an engine or of a `SolarWind`."""

    schemas = Operation(
        Operations.schemas,
        to="all",
        merge=merging.schemas_of_all,
        repeat="question",
        http=Http("GET", "/v1/schemas", "The schemas of payloads, and what handlers fire", "schemas"),
        cli=Cli(
            "schemas",
            "What producers state of the payloads of topics, and what the versions of purposes read.",
            none="No schemas{on_topic}.",
            examples=("schemas video.uploaded",),
        ),
    )


class Stating:
    """What services state of their schemas."""

    declare_schema = Operation(
        Operations.declare_schema,
        right="fire",
        makes=True,
        repeat="always",
        restated=Restated("topic", always=True),
    )
