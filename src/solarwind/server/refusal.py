"""An answer by hand, whole, where what came is no request that anything else could answer."""

from __future__ import annotations

from http import HTTPStatus

import msgspec


def refusal(status: int, code: str, detail: str) -> bytes:
    """A problem, RFC 9457, after which the connection ends."""
    title = HTTPStatus(status).phrase
    body = msgspec.json.encode(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    )
    head = (
        f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
