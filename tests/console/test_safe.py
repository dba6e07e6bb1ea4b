"""What others wrote is text and nothing else; who may not, does not; and the token is in no address."""

from __future__ import annotations

from playwright.async_api import expect

from solarwind.server.access import create_token, revoke_token

from .browsing import Browsing, World, go, on_page
from .world import BIG, HARMFUL

UNKNOWN = ("401 (Unauthorized)",)


@on_page
async def test_what_others_wrote_is_shown_as_text(browsing: Browsing, world: World) -> None:
    """A dialog, a request elsewhere or a violation of the policy fails the page."""
    purpose = HARMFUL[0].replace("<", "%3C").replace(">", "%3E").replace(" ", "%20").replace("=", "%3D")
    async with browsing.page(world.console, world.admin) as page:
        for number, text in enumerate(HARMFUL):
            await go(page, f"/events/hostile/harm-{number}")
            await expect(page.locator("h1")).to_have_text(f"harm-{number}")
            await expect(page.locator(".tree")).to_contain_text(
                text.replace("\u202e", r"\u202e").replace("\u202c", r"\u202c")
            )
            await expect(page.locator("main")).to_contain_text(HARMFUL[0])
        for address in ("/", "/purposes", f"/purposes/hostile/{purpose}", f"/dead/hostile/{purpose}", "/instances"):
            await go(page, address)
            await expect(page.locator("main")).to_contain_text(HARMFUL[0])
        await expect(page.locator("main")).to_contain_text(HARMFUL[1])
        assert await page.evaluate("document.querySelectorAll('main img, main script, main svg[onload]').length") == 0
        assert await page.evaluate("({}).polluted") is None


@on_page
async def test_payloads_of_all_kinds_are_shown_exactly(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.admin) as page:
        await go(page, "/events/shapes/exact")
        await expect(page.locator(".tree")).to_contain_text(str(BIG))
        await page.get_by_role("button", name="As text").click()
        await expect(page.get_by_label("Payload", exact=True)).to_contain_text(f'"exact": {BIG}')
        await go(page, "/events/shapes/large")
        await page.get_by_role("button", name="all 1,000,000 characters").click()
        await expect(page.locator(".v-text")).to_have_text(f'"{"x" * 1_000_000}"')


@on_page
async def test_the_token_is_asked_for_and_a_wrong_one_is_refused(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, errors=UNKNOWN) as page:
        await page.get_by_label("Token").fill("sw_wrong")
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.get_by_role("alert")).to_contain_text("expected a token")
        await page.get_by_label("Token").fill(world.watcher)
        await page.get_by_role("button", name="Sign in").click()
        await expect(page.locator("h1")).to_have_text("Overview")
        await expect(page.locator("header.top")).to_contain_text("read only")
        await page.reload()
        await expect(page.locator("h1")).to_have_text("Overview")
        assert await page.context.cookies() == []
        await page.get_by_role("button", name="Sign out").click()
        await expect(page.get_by_label("Token")).to_be_visible()


@on_page
async def test_a_token_that_is_no_valid_part_of_an_address_is_refused_as_any_other(
    browsing: Browsing, world: World
) -> None:
    async with browsing.page(f"{world.console}#token=%zz", errors=UNKNOWN) as page:
        await expect(page.get_by_role("alert")).to_contain_text("expected a token")
        await expect(page.get_by_label("Token")).to_be_visible()


@on_page
async def test_a_token_of_the_fragment_stays_in_no_address(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.reader) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        assert page.url == f"{world.console}#/"
        assert world.reader not in await page.evaluate("JSON.stringify(history.state) + location.href")


@on_page
async def test_without_the_right_nothing_can_be_done_and_no_payload_is_shown(browsing: Browsing, world: World) -> None:
    async with browsing.page(world.console, world.watcher) as page:
        await go(page, "/events/video.uploaded/first")
        await expect(page.locator("main")).to_contain_text("watch:payloads")
        assert "first.mov" not in await page.locator("main").inner_text()
        await go(page, "/purposes/video.uploaded/Make%20thumbnail")
        for name in ("Pause", "Replay", "Retire"):
            await expect(page.get_by_role("button", name=name)).to_be_disabled()
        await go(page, "/dead")
        await expect(page.get_by_role("button", name="Redrive these").first).to_be_disabled()
        for query in ("error%3Aframes", "payload.name%3Afirst.mov"):
            await go(page, f"/search?q={query}")
            await expect(page.locator("main")).to_contain_text("nothing is found by them with this one")


@on_page
async def test_a_token_that_may_fire_is_not_said_to_be_read_only(browsing: Browsing, world: World) -> None:
    token, _ = create_token(world.tokens, "front", watch=True, fire=("safe.fired",))
    async with browsing.page(world.console, token) as page:
        await go(page, "/topics/safe.fired")
        await expect(page.get_by_role("button", name="Fire an event")).to_be_enabled()
        await expect(page.locator("header.top")).not_to_contain_text("read only")


@on_page
async def test_a_token_that_is_revoked_is_asked_for_again(browsing: Browsing, world: World) -> None:
    token, made = create_token(world.tokens, "passing", watch=True)
    async with browsing.page(world.console, token, errors=UNKNOWN) as page:
        await expect(page.locator("h1")).to_have_text("Overview")
        revoke_token(world.tokens, made.id)
        await expect(page.get_by_label("Token")).to_be_visible()
        await expect(page.get_by_role("alert")).to_contain_text("expected")
