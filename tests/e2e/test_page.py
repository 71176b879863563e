"""The first page in a real browser, while things happen. Skipped where there is no Chromium."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import browser
from browser import Browser, Page
from served import Served, served

pytestmark = pytest.mark.skipif(not browser.PROGRAM, reason="there is no Chromium")

HOSTILE = "<img src=x onerror=document.title='run'>"
KEY, USER = "an-admins-key", "a-users-key"

IS_LIVE = "document.getElementById('live')?.textContent === 'live'"
STATES = (
    "[...document.querySelectorAll('[data-backend] [data-field=state]')].map(e => e.textContent)"
)

MODEL_STATES = "[...document.querySelectorAll('[data-state-of]')].map(e => e.textContent)"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """A browser."""
    with browser.browser(tmp_path_factory.mktemp("profile")) as chromium:
        yield chromium


@pytest.fixture
def folder(tmp_path: Path, tiny_gguf: Path) -> Path:
    """A data directory with a model whose name is hostile."""
    models = tmp_path / "data" / "models"
    models.mkdir(parents=True)
    shutil.copy(tiny_gguf, models / "tiny.gguf")
    for name, text in (("tiny", "tiny"), ("hostile", HOSTILE)):
        (models / f"{name}.yaml").write_text(
            f'name: "{text}"\nbackend: llama\nparameters: {{model: tiny.gguf}}\n'
        )
    return models.parent


@pytest.fixture
def page(chromium: Browser) -> Iterator[Page]:
    """An empty page, on which nothing was complained about in the end."""
    chromium.complaints.clear()
    page = chromium.page()
    yield page
    page.call("Page.close")
    assert [] == chromium.complaints


def test_live(page: Page, folder: Path) -> None:
    """What backends do shows on the page while it is open, and nothing that a name says is done."""
    with served(folder=folder) as service:
        page.open(f"http://{service.http}/")
        page.wait(IS_LIVE)
        before = page.text()
        service.load("tiny")
        page.wait(f"{STATES}.join() === 'ready'")
        service.load(HOSTILE)
        page.wait(f"{STATES}.join() === 'ready,ready'")
        page.wait("!document.querySelector('[data-field=memory]').textContent.includes('known')")
        shown = page.text()
        service.post("/backend/shutdown", model="tiny")
        page.wait(f"{STATES}.join() === 'ready'")
        service.post("/backend/shutdown", model=HOSTILE)
        page.wait("document.body.innerText.includes('None is running')")

    assert "None is running" in before
    assert HOSTILE in shown
    assert "MiB" in shown
    assert 2 == page.value("document.querySelectorAll('.state.stopped[data-state-of]').length")
    assert 0 == page.value("document.querySelectorAll('img').length")


def test_restart(page: Page, folder: Path) -> None:
    """A page whose service goes away says so, and goes on by itself when it is back."""
    with served(folder=folder) as first:
        page.open(f"http://{first.http}/")
        first.load("tiny")
        page.wait(f"{STATES}.join() === 'ready'")
    page.wait("document.getElementById('live').textContent.includes('again')")
    with served("--http-listen", first.http, folder=folder):
        page.wait(IS_LIVE)
        page.wait("document.body.innerText.includes('None is running')")


def test_without_scripts(page: Page, folder: Path) -> None:
    """A page that runs no scripts is whole, of the moment it was made."""
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    with served(folder=folder) as service:
        service.load("tiny")
        page.call("Page.navigate", url=f"http://{service.http}/")
        found = shown_without_scripts(page)

    assert "ready" in found
    assert "None is running" not in found
    assert "live" not in found.split()


def shown_without_scripts(page: Page) -> str:
    """Return the text of a page once it has backends, without running anything in it."""
    while True:
        tree = page.call("DOMSnapshot.captureSnapshot", computedStyles=[])
        strings, layout = tree["strings"], tree["documents"][0]["layout"]
        texts = [strings[number] for number in layout["text"] if number >= 0]
        if "Settings" in texts:
            return " ".join(texts)


@pytest.fixture
def guarded(folder: Path) -> Iterator[Served]:
    """A service that asks for a key."""
    keys = folder.with_name("keys")
    keys.touch(0o600)
    keys.write_text(f"{KEY}\n{USER} user\n")
    with served("--api-key-file", str(keys), folder=folder) as service:
        yield service


def give(page: Page, key: str) -> None:
    page.value(f"document.getElementById('key').value = {key!r}")
    page.value("document.getElementById('key-form').requestSubmit()")


def test_key(page: Page, chromium: Browser, guarded: Served) -> None:
    """Who gives a key sees what it opens, live; the key is in no address, cookie or storage."""
    page.open(f"http://{guarded.http}/")
    give(page, "wrong")
    page.wait("document.body.innerText.includes('does not know this key')")
    locked = page.text()
    give(page, KEY)
    page.wait(IS_LIVE)
    headers = {"authorization": f"Bearer {KEY}"}
    url = f"http://{guarded.http}/backend/load"
    httpx.post(url, json={"model": "tiny"}, headers=headers, timeout=30).raise_for_status()
    page.wait(f"{STATES}.join() === 'ready'")
    kept = page.value(
        "[location.href, document.cookie, JSON.stringify(localStorage),"
        " JSON.stringify(sessionStorage)].join(' ')"
    )

    assert "tiny" not in locked
    assert any("/api/backends/watch" in address for address in chromium.addresses)
    assert not [text for text in (kept, *chromium.addresses) if KEY in text]


def test_key_of_a_user(page: Page, chromium: Browser, guarded: Served) -> None:
    """A key for users shows models, live, and no backends that could be watched."""
    called = len(chromium.addresses)
    page.open(f"http://{guarded.http}/")
    give(page, USER)
    page.wait(IS_LIVE)
    before = page.value(MODEL_STATES)
    headers = {"authorization": f"Bearer {KEY}"}
    url = f"http://{guarded.http}/backend/load"
    httpx.post(url, json={"model": "tiny"}, headers=headers, timeout=30).raise_for_status()
    page.wait(f"{MODEL_STATES}.join() === 'not loaded,ready'")

    assert ["not loaded", "not loaded"] == before
    assert not page.value("!!document.getElementById('backends')")
    assert not [address for address in chromium.addresses[called:] if "watch" in address]


def test_cookie(page: Page, guarded: Served) -> None:
    """Where the browser has the key as a cookie, nothing is asked for."""
    page.call("Network.setCookie", name="token", value=KEY, url=f"http://{guarded.http}/")
    page.open(f"http://{guarded.http}/")

    page.wait(IS_LIVE)
    page.call("Network.clearBrowserCookies")
