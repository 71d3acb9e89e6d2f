"""A headless Chromium over the WebDriver protocol, with nothing but the standard library."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the key of a reference to an element, fixed by the protocol
THERE = all(shutil.which(program) for program in ("chromium", "chromedriver"))
LEFT, RIGHT = "\ue012", "\ue014"  # keys


class Browser:
    """One window of the browser."""

    def __init__(self, base: str, width: int, height: int, *arguments: str) -> None:
        size = f"--window-size={width},{height}"
        # Root, as in a container, has no sandbox; a small /dev/shm would end the renderer.
        fixed = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", size]
        options = {"binary": shutil.which("chromium"), "args": [*fixed, *arguments]}
        wanted = {"capabilities": {"alwaysMatch": {"browserName": "chrome", "goog:chromeOptions": options}}}
        self.base = base
        self.base = f"{base}/session/{self.call('POST', '/session', wanted)['sessionId']}"

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """A command of the protocol: its value."""
        data = json.dumps(body or {}).encode() if method == "POST" else None
        request = urllib.request.Request(self.base + path, data, {"Content-Type": "application/json"}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=300) as answer:
                return json.loads(answer.read())["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {json.loads(error.read())['value']['message']}") from None

    def open(self, address: str) -> None:
        self.call("POST", "/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a function body of JavaScript returns."""
        return self.call("POST", "/execute/sync", {"script": script, "args": arguments})

    def wait(self, selector: str) -> None:
        """Wait until an element is there, ten seconds at most."""
        end = time.monotonic() + 10
        while not self.run("return document.querySelector(arguments[0]) !== null", selector):
            assert time.monotonic() < end, f"no {selector}"
            time.sleep(0.02)

    def find(self, selector: str) -> str:
        """The first element of a CSS selector."""
        found: str = self.call("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]
        return found

    def click(self, selector: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/click")

    def type(self, selector: str, keys: str) -> None:
        self.call("POST", f"/element/{self.find(selector)}/value", {"text": keys})

    def drag(self, selector: str, dx: int, dy: int = 0, kind: str = "mouse") -> None:
        """Press at an element's middle, move by some pixels, and let go."""
        start = {"type": "pointerMove", "origin": {ELEMENT: self.find(selector)}, "x": 0, "y": 0}
        move = {"type": "pointerMove", "origin": "pointer", "x": dx, "y": dy, "duration": 100}
        steps = [start, {"type": "pointerDown", "button": 0}, move, {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self.call("POST", "/actions", {"actions": [pointer]})

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.call("GET", "/screenshot")))


@contextmanager
def browser(width: int = 1200, height: int = 900, *arguments: str) -> Iterator[Browser]:
    """A browser for a while, with command line arguments of its own."""
    with subprocess.Popen(["chromedriver", "--port=0"], stdout=subprocess.PIPE, text=True) as driver:
        assert driver.stdout is not None
        port = next(
            found[1] for line in driver.stdout if (found := re.search(r"started successfully on port (\d+)", line))
        )
        try:
            window = Browser(f"http://127.0.0.1:{port}", width, height, *arguments)
            try:
                yield window
            finally:
                window.call("DELETE", "")
        finally:
            driver.terminate()
