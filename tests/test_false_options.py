"""What is false is no way to leave an option out."""

from __future__ import annotations

from typing import Any

import pytest

from solarwind import BadArgument, SolarWind


@pytest.mark.parametrize("retry", [0, False, "", [], {}, 0.0])
def test_a_retry_that_is_false_is_refused_and_is_not_the_default(retry: Any) -> None:
    async def handle(payload: dict[str, Any]) -> None: ...

    with pytest.raises(BadArgument, match="expected retry, such as Retry"):
        SolarWind("memory://").on("a.b", purpose="P", retry=retry)(handle)


@pytest.mark.parametrize("value", ["", " ", 5, None])
@pytest.mark.parametrize("name", ["title", "version"])
def test_an_asyncapi_document_has_a_title_and_a_version_that_are_texts(name: str, value: Any) -> None:
    with pytest.raises(BadArgument, match=f"expected {name} of an AsyncAPI document"):
        SolarWind("memory://").asyncapi(**{name: value})
