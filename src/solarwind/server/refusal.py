"""A complete HTTP answer as bytes, for input that is no valid request."""

from __future__ import annotations

from http import HTTPStatus

import msgspec


def refusal(status: int, code: str, detail: str) -> bytes:
    """Return problem details (RFC 9457) as an answer after which the connection closes."""
    title = HTTPStatus(status).phrase
    body = msgspec.json.encode(
        {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code}
    )
    head = (
        f"HTTP/1.1 {status} {title}\r\ncontent-type: application/problem+json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body
