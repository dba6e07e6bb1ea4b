"""The operations on the schemas of payloads: a part of the table in `operations.py`."""

from __future__ import annotations

from .engine import merging
from .engine.operations import Operations
from .engine.request import Http, Operation


class Describing:
    """The operations on schemas, of an engine or of a `SolarWind`."""

    schemas = Operation(
        Operations.schemas,
        to="all",
        merge=merging.schemas_of_all,
        repeat="question",
        http=Http("GET", "/v1/schemas", "The schemas of payloads, and what handlers fire", "schemas"),
    )


class Stating:
    """What services state of their schemas."""

    declare_schema = Operation(Operations.declare_schema, right="fire", makes=True, repeat="always")
