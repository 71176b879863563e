"""A real browser, driven over a pipe, for tests that look at pages as people do."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

PROGRAM = shutil.which("chromium") or shutil.which("google-chrome") or ""
"""The browser. Empty where there is none."""
PATIENCE_SECONDS = 30.0

_ARGUMENTS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--remote-debugging-pipe",
)

# It wants its pipes under the numbers 3 and 4, which may be the others' now.
_EXEC = """
import os, sys
a, b = os.dup(int(sys.argv[1])), os.dup(int(sys.argv[2]))
while min(a, b) < 5:
    a, b = os.dup(a), os.dup(b)
os.dup2(a, 3), os.dup2(b, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """Speaks the DevTools protocol: messages of JSON, each ended by a zero byte."""

    def __init__(self, commands: int, answers: int) -> None:
        self._commands = open(commands, "wb", buffering=0)  # noqa: SIM115 - closed by `close`
        self._answers = open(answers, "rb", buffering=0)  # noqa: SIM115
        self._rest = b""
        self._number = 0
        self.complaints: list[str] = []
        """What pages were refused, and what their scripts did not catch."""
        self.addresses: list[str] = []
        """What pages asked for."""

    def close(self) -> None:
        self._commands.close()
        self._answers.close()

    def call(self, method: str, session: str = "", **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol and return its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        self._commands.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                assert "error" not in answer, (method, answer)
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def page(self) -> Page:
        """Open an empty page."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable", session)
        return Page(self, session)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._rest:
            chunk = self._answers.read(1 << 20)
            assert chunk, "the browser has ended"
            self._rest += chunk
        line, _, self._rest = self._rest.partition(b"\0")
        message: dict[str, Any] = json.loads(line)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        if event.get("method") == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(event["params"]["exceptionDetails"]))
        elif event.get("method") == "Network.requestWillBeSent":
            self.addresses.append(event["params"]["request"]["url"])
        elif event.get("method") == "Log.entryAdded":
            entry = event["params"]["entry"]
            if entry["source"] in ("security", "javascript") and entry["level"] == "error":
                self.complaints.append(entry["text"])


class Page:
    """One page of a browser."""

    def __init__(self, browser: Browser, session: str) -> None:
        self._browser = browser
        self._session = session

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol for this page."""
        return self._browser.call(method, self._session, **parameters)

    def open(self, url: str) -> None:
        """Load a page and return once it is there."""
        self.call("Page.navigate", url=url)
        self.wait(f"document.readyState === 'complete' && location.href.startsWith({url!r})")

    def value(self, expression: str) -> Any:
        """Return what an expression of JavaScript is."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Return once an expression is true."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while not self.value(expression):
            assert time.monotonic() < deadline, (expression, self.text())
            time.sleep(0.02)

    def text(self) -> str:
        """Return the text that a reader sees."""
        text: str = self.value("document.body.innerText")
        return text

    def picture(self, file: Path) -> None:
        """Write what the page looks like, as PNG."""
        taken = self.call("Page.captureScreenshot", captureBeyondViewport=True)
        file.write_bytes(base64.b64decode(taken["data"]))


@contextlib.contextmanager
def browser(profile: Path) -> Iterator[Browser]:
    """Run a browser for as long as the context is open.

    Args:
        profile: Folder for what it remembers.
    """
    its_commands, commands = os.pipe()
    answers, its_answers = os.pipe()
    words = [PROGRAM, *_ARGUMENTS, f"--user-data-dir={profile}"]
    process = subprocess.Popen(
        [sys.executable, "-c", _EXEC, str(its_commands), str(its_answers), *words],
        pass_fds=(its_commands, its_answers),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    os.close(its_commands)
    os.close(its_answers)
    driven = Browser(commands, answers)
    try:
        yield driven
        driven.call("Browser.close")
    finally:
        driven.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5)
        process.kill()
        process.wait()
