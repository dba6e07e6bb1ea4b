"""Examples in the commands' help, each a line for a shell."""

from __future__ import annotations

import typer

from ..operations import OPERATIONS

EXAMPLES: dict[str, tuple[str, ...]] = {
    "run": ("run", "run app:wind", "run app:wind --workers 4 --url sqlite:///wind.db"),
    "dev": ("dev", "dev app:wind --data shop-dev.db"),
    "new": ("new my-shop", "new my-shop --template django"),
    "docs": ("docs app:wind --output asyncapi.json", "docs --url ws://127.0.0.1:7400"),
    "serve": (
        "serve",
        "serve --data /var/lib/solarwind/wind.db --port 7400",
        "serve --host 0.0.0.0 --cert server.pem --cert-key server.key",
        "serve --engine nats://n1,n2,n3/shop",
    ),
    "fire": (
        'fire video.uploaded \'{"name": "cat.mov"}\'',
        "fire video.uploaded - --key cat --id upload-17 < video.json",
        "fire video.uploaded --lines < videos.ndjson",
    ),
    "listen": ("listen video.uploaded --purpose Look --since beginning --count 2",),
    "relay": ("relay --database postgresql://shop@db/shop --url ws://host:7400",),
    "outbox init": (
        "outbox init --database postgresql://shop@db/shop",
        "outbox init --database postgresql://shop@db/shop --sql",
    ),
    "outbox prune": ("outbox prune --database postgresql://shop@db/shop --older 30d",),
    "outbox status": ("outbox status --database sqlite:///shop.db",),
    "outbox redrive": ("outbox redrive --database sqlite:///shop.db",),
    "top": ("top --interval 5",),
    "ui": ("ui --url sqlite:///wind.db", "ui --url nats://n1,n2,n3/shop", "ui --url wss://wind.example"),
    "mcp": ("mcp --url sqlite:///wind.db",),
    "token create": (
        "token create shop --fire video.uploaded --listen video.encoded",
        "token create operator --admin --expires 30d",
    ),
    "token revoke": ("token revoke shop",),
    "check": ("check --url sqlite:///wind.db",),
    "backup": ("backup wind-monday.db --url sqlite:///wind.db",),
    "restore": ("restore wind-monday.db --url sqlite:///wind.db",),
    "copy": ("copy --from sqlite:///wind.db --to nats://127.0.0.1:4222/shop",),
}
EXAMPLES |= {each.cli.words: each.cli.examples for each in OPERATIONS.values() if each.cli and each.cli.examples}
_VARIABLES = "An option is also an environment variable: --some-name is SOLARWIND_SOME_NAME."


def explain(group: typer.Typer, words: str = "") -> None:
    """Add the examples to the help of every command."""
    for command in group.registered_commands:
        name = command.name or getattr(command.callback, "__name__", "").rstrip("_")
        lines = [f"solarwind {line}" for line in EXAMPLES.get(f"{words}{name}", ())]
        heading = ["Examples:"] if lines else []
        command.epilog = "\n\n".join([*heading, *lines, _VARIABLES])
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            explain(inner.typer_instance, f"{words}{inner.name} ")
