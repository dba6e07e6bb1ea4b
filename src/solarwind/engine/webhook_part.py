"""What is asked of the webhooks of a server: an engine has none, and says where to ask.

A server answers for its own: see `Asking.add_answers`, and `server/webhooks.py`.
"""

from __future__ import annotations

from ..errors import NotAllowed
from ..records import WebhookAnswer, WebhookInfo
from .arguments import HookName, Limit, Purpose, Topic


class WebhookOperations:
    """The part of an engine where no server is in its process."""

    async def webhooks(self, topic: Topic | None = None) -> list[WebhookInfo]:
        """Return the webhooks of a server, of one topic or of all, by topic, purpose and name. Raise `NotAllowed` where
        no server is asked."""
        raise _no_server()

    async def pause_webhook(self, topic: Topic, purpose: Purpose, name: HookName) -> None:
        """Have a webhook send nothing until it is resumed, also after a restart: it leaves its purpose, and the events
        that no other instance gets pend; those of a fan-out are dropped. Requests under way are waited for. Nothing
        changes where it is paused already. Raise `NotFound`, `ConflictError` for one that has ended, and `NotAllowed`
        where no server is asked."""
        raise _no_server()

    async def resume_webhook(self, topic: Topic, purpose: Purpose, name: HookName) -> None:
        """Have a webhook that is paused go on. Nothing changes where it is not. Raise `NotFound`, `ConflictError` for
        one that has ended, and `NotAllowed` where no server is asked."""
        raise _no_server()

    async def webhook_answers(
        self, topic: Topic, purpose: Purpose, name: HookName, limit: Limit = 20
    ) -> list[WebhookAnswer]:
        """Return what a webhook's target answered last, the latest first: `limit` answers, 20 at most. They are those
        since this server started it or it was changed. Raise `NotFound`, and `NotAllowed` where no server is asked."""
        raise _no_server()


OF_WEBHOOKS = "webhooks", "pause_webhook", "resume_webhook", "webhook_answers"


def _no_server() -> NotAllowed:
    return NotAllowed(
        "expected a server, which is what delivers webhooks, got a dispatcher alone: ask the server by its URL, such "
        "as --url ws://127.0.0.1:7400"
    )
