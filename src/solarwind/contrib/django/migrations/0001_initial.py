"""The tables `solarwind_once` and `solarwind_outbox`, as `solarwind outbox init` makes them."""

from __future__ import annotations

from typing import Any, ClassVar

from django.db import migrations, router
from django.db.migrations.operations.base import Operation

from solarwind.outbox.sql import ONCE, OUTBOX, SCHEMA


class MakeTables(Operation):
    """Make the tables, in databases that can have an outbox."""

    reduces_to_sql = True
    reversible = True

    def state_forwards(self, app_label: str, state: Any) -> None:
        """Change nothing: there are no models of them."""

    def database_forwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Make what is not there yet."""
        self._execute(app_label, schema_editor, SCHEMA.get(schema_editor.connection.vendor, ()))

    def database_backwards(self, app_label: str, schema_editor: Any, from_state: Any, to_state: Any) -> None:
        """Remove them, with what waits in the outbox."""
        gone = [f"DROP TABLE IF EXISTS {table}" for table in (ONCE, OUTBOX)]
        if schema_editor.connection.vendor == "postgresql":
            gone += [f"DROP FUNCTION IF EXISTS solarwind_outbox_{name}()" for name in ("committing", "wake")]
        self._execute(app_label, schema_editor, gone)

    def describe(self) -> str:
        """Return what it does, for `showmigrations --plan`."""
        return f"Make the tables {ONCE} and {OUTBOX}"

    def _execute(self, app_label: str, schema_editor: Any, statements: Any) -> None:
        if router.allow_migrate(schema_editor.connection.alias, app_label):
            for statement in statements:
                schema_editor.execute(statement, params=None)


class Migration(migrations.Migration):
    """The first."""

    initial = True
    dependencies: ClassVar[list[Any]] = []
    operations: ClassVar[list[Any]] = [MakeTables()]
