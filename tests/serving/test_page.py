"""The page as a person meets it, in headless Chromium against a real server."""

from __future__ import annotations

import json
import os
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from conftest import make_dataset
from genrec.serving.app import create_app
from genrec.serving.config import ServeConfig
from genrec.serving.security import key_hash

pytestmark = pytest.mark.e2e
TITLES = make_dataset().catalogue.titles
HOSTILE = "<img src=x onerror=document.title='hacked'> Zebra"


class Server:
    """A real uvicorn in a thread."""

    def __init__(self, config: ServeConfig) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        app = create_app(config)
        options = uvicorn.Config(app, port=self.port, log_level="error")
        self._server = uvicorn.Server(options)
        self._thread = threading.Thread(target=self._server.run)
        self._thread.start()
        for _ in range(200):
            if self._server.started:
                break
            time.sleep(0.05)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)


@pytest.fixture(scope="module")
def server(run: Path) -> Iterator[Server]:
    serving = Server(ServeConfig.create(run=run, store="sqlite://"))
    yield serving
    serving.stop()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = shutil.which("chromium") or shutil.which("chromium-browser")
    if found is None:
        pytest.skip("needs a browser (Debian package chromium)")
    from playwright.sync_api import sync_playwright

    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=found, args=flags)
        yield opened
        opened.close()


@pytest.fixture
def page(browser: Any, server: Server) -> Iterator[Any]:
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    opened = context.new_page()
    opened.troubles = []
    opened.on("console", lambda line: opened.troubles.append(line.text))
    opened.on("pageerror", lambda error: opened.troubles.append(str(error)))
    opened.on(
        "request",
        lambda asked: asked.url.startswith(server.url) or opened.troubles.append(asked.url),
    )
    opened.goto(server.url)
    opened.wait_for_selector("#list:not(.stale) > li")
    yield opened
    context.close()


def pick(page: Any, title: str) -> None:
    page.fill("#query", title)
    page.wait_for_selector(f'#options li:text-is("{title}")')
    page.locator(f'#options li:text-is("{title}")').click()
    page.wait_for_selector("#list:not(.stale) details")


def listed(page: Any) -> list[str]:
    page.wait_for_selector("#list:not(.stale) > li")
    return list(page.locator("#list .title").all_inner_texts())


def test_type_pick_recommend_explain_remove(page: Any) -> None:
    before = listed(page)
    pick(page, TITLES[3])
    pick(page, TITLES[8])
    chips = page.locator("#history li span").all_inner_texts()
    assert chips == [TITLES[3], TITLES[8]]
    assert listed(page) != before
    assert not set(listed(page)) & set(chips)
    page.locator("#list summary").first.click()
    reasons = page.locator("#list details[open] .why li").all_inner_texts()
    assert len(reasons) == 2
    assert "×" in reasons[0]
    page.get_by_role("button", name=f"Remove {TITLES[3]}").click()
    page.wait_for_selector("#list:not(.stale) > li")
    assert page.locator("#history li").count() == 1
    assert page.troubles == []


def test_like_and_hide_change_the_list(page: Any) -> None:
    first, second = listed(page)[:2]
    page.get_by_role("button", name=f"Hide {first}", exact=True).click()
    page.wait_for_selector("#unhide:not([hidden])")
    page.wait_for_selector(f'#list:not(.stale) > li:first-child .title:not(:text-is("{first}"))')
    assert first not in listed(page)
    page.get_by_role("button", name=f"Like {second}", exact=True).click()
    page.wait_for_selector("#history li")
    assert page.locator("#history li span").all_inner_texts() == [second]
    page.locator("#unhide").click()
    page.wait_for_selector("#unhide", state="hidden")
    assert page.troubles == []


def test_a_reload_keeps_what_was_chosen(page: Any) -> None:
    pick(page, TITLES[5])
    page.locator("#count").select_option("5")
    page.wait_for_selector("#list:not(.stale) > li:nth-child(5):last-child")
    kept = listed(page)
    page.reload()
    page.wait_for_selector("#list:not(.stale) details")
    assert page.locator("#history li span").all_inner_texts() == [TITLES[5]]
    assert listed(page) == kept
    assert len(kept) == 5


def test_the_keyboard_is_enough(page: Any) -> None:
    page.locator("#query").focus()
    page.keyboard.type(TITLES[7][:3])
    page.wait_for_selector("#options li")
    assert page.locator("#query").get_attribute("aria-expanded") == "true"
    assert page.locator("#query").get_attribute("aria-activedescendant") == "option-0"
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowUp")
    wanted = page.locator("#option-0").inner_text()
    page.keyboard.press("Enter")
    page.wait_for_selector("#list:not(.stale) details")
    assert page.locator("#history li span").all_inner_texts() == [wanted]
    assert "added" in page.locator("#status").inner_text() or listed(page)
    page.keyboard.type("zz")
    page.keyboard.press("Escape")
    page.keyboard.press("Escape")
    assert page.locator("#query").input_value() == ""
    page.keyboard.press("Backspace")
    page.wait_for_selector("#history li", state="detached")


def test_words_steer_the_list_by_keyboard_alone(page: Any) -> None:
    page.keyboard.press("Tab")
    page.locator("#query").focus()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.id") == "words"
    page.keyboard.type("green")
    page.keyboard.press("Enter")
    page.wait_for_selector("#list-heading:has-text('For this mood')")
    page.wait_for_selector("#list > li:nth-child(1) .title:has-text('Green')")
    page.wait_for_selector("#list summary:has-text('Because of your words')")
    page.locator("#words").fill("zxcv")
    page.wait_for_selector("#words-note:has-text('No title or category is like these words')")
    page.reload()
    page.wait_for_selector("#words-note:has-text('like these words')")
    assert page.locator("#words").input_value() == "zxcv"
    page.locator("#clear").click()
    page.wait_for_selector("#list-heading:has-text('Popular to start with')")
    assert page.locator("#words").input_value() == ""
    assert page.locator("#words-note").is_hidden()
    assert page.troubles == []


def test_the_page_says_what_words_were_taken_for(page: Any) -> None:
    def understood(route: Any) -> None:
        response = route.fetch()
        words = {"known_words": ["emerald"], "related_words": {"emerald": "green"}}
        route.fulfill(response=response, json=response.json() | words)

    page.route("**/v1/recommend", understood)
    page.locator("#words").fill("emerald")
    page.wait_for_selector("#words-note:has-text('Understood: emerald as green.')")
    page.wait_for_function(
        "document.querySelector('#status').innerText.includes('emerald as green')"
    )
    assert page.troubles == []


def test_a_hostile_title_is_only_text(page: Any, server: Server) -> None:
    added = page.request.post(
        f"{server.url}/v1/items", data={"title": HOSTILE, "item_id": "hostile"}
    )
    assert added.status == 201
    page.fill("#query", "zebra")
    page.wait_for_selector("#options li[role=option]")
    assert page.locator("#option-0").inner_text() == HOSTILE
    page.keyboard.press("Enter")
    page.wait_for_selector("#history li")
    assert page.locator("#history li span").all_inner_texts() == [HOSTILE]
    assert page.locator("img[src=x]").count() == 0
    assert page.title() == "GenRec"
    page.request.delete(f"{server.url}/v1/items/hostile")


def test_trouble_is_said_and_can_be_tried_again(page: Any) -> None:
    page.route("**/v1/recommend", lambda route: route.abort())
    page.locator("#count").select_option("20")
    page.wait_for_selector("#message.bad:not([hidden])")
    assert "cannot be reached" in page.locator("#message").inner_text()
    page.unroute("**/v1/recommend")
    page.get_by_role("button", name="Try again").click()
    assert len(listed(page)) == 20


def test_a_title_that_is_gone_is_said(page: Any) -> None:
    state = {"history": [{"item_id": "gone", "title": "Gone"}], "hidden": [], "k": 10}
    context = page.context
    context.add_init_script(f"localStorage.setItem('genrec-state', '{json.dumps(state)}')")
    page.reload()
    page.wait_for_selector("#message.bad:not([hidden])")
    assert "not in the catalogue" in page.locator("#message").inner_text()
    page.locator("#clear").click()
    assert listed(page)


def test_enter_takes_what_was_typed_last(page: Any) -> None:
    page.fill("#query", TITLES[2])
    page.wait_for_selector(f'#options li:text-is("{TITLES[2]}")')
    page.fill("#query", TITLES[9])
    page.keyboard.press("Enter")  # before the service was asked
    page.wait_for_selector("#history li")
    assert page.locator("#history li span").all_inner_texts() == [TITLES[9]]


def test_open_reasons_stay_open(page: Any) -> None:
    pick(page, TITLES[1])
    third = listed(page)[2]
    page.locator("#list > li:nth-child(3) summary").click()
    page.get_by_role("button", name=f"Hide {listed(page)[0]}", exact=True).click()
    page.wait_for_selector("#unhide:not([hidden])")
    page.wait_for_selector(f'#list:not(.stale) > li:nth-child(2) .title:text-is("{third}")')
    opened = page.locator("#list details[open]").locator("xpath=..").locator(".title")
    assert opened.all_inner_texts() == [third]


@pytest.mark.parametrize(
    "kept",
    [
        '{"history": null}',
        "no JSON",
        '{"history": [{"item_id": "i1", "title": "Other"}], "hidden": [], "k": 10, "data": "old"}',
    ],
)
def test_what_was_kept_of_something_else_is_dropped(
    browser: Any, server: Server, kept: str
) -> None:
    context = browser.new_context()
    context.add_init_script(f"localStorage.setItem('genrec-state', {json.dumps(kept)})")
    page = context.new_page()
    page.goto(server.url)
    assert len(listed(page)) == 10
    assert page.locator("#history li").count() == 0
    context.close()


def test_a_key_is_asked_for(browser: Any, run: Path) -> None:
    serving = Server(ServeConfig.create(run=run, store="sqlite://", key_hashes=[key_hash("k1")]))
    context = browser.new_context()
    page = context.new_page()
    page.goto(serving.url)
    page.wait_for_selector("#key-form:not([hidden])")
    for wrong, said in (("ключ", "Latin"), ("k2", "not accept")):
        page.fill("#key", wrong)
        page.keyboard.press("Enter")
        page.wait_for_selector(f"#key-trouble:has-text('{said}')")
    page.fill("#key", "k1")
    page.keyboard.press("Enter")
    assert len(listed(page)) == 10
    page.goto(f"{serving.url}/docs")
    page.wait_for_selector("summary:has-text('/v1/recommend')")
    context.close()
    serving.stop()


def test_the_api_is_described_without_help_from_elsewhere(page: Any, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    page.locator("summary:has-text('POST /v1/recommend')").click()
    shown = page.locator("details[open]").inner_text()
    assert "RecommendRequest" in shown
    assert "exclude_seen" in shown
    assert page.troubles == []


@pytest.mark.parametrize(("width", "height", "scheme"), [(390, 844, "dark"), (1280, 900, "light")])
def test_it_fits_phones_and_desktops(
    browser: Any, server: Server, width: int, height: int, scheme: str, tmp_path: Path
) -> None:
    size = {"width": width, "height": height}
    context = browser.new_context(viewport=size, color_scheme=scheme)
    page = context.new_page()
    page.goto(server.url)
    listed(page)
    pick(page, TITLES[3])
    page.locator("#list summary").first.evaluate(
        "line => { line.textContent += '-long'.repeat(40) }"
    )
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("#list").bounding_box()["width"] <= width
    page.screenshot(path=tmp_path / f"{scheme}.png")
    context.close()
