"""A real browser, driven by plain requests of the WebDriver protocol: Chromium without a window."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

RIGHT = "\ue014"  # a key
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"  # the protocol's key of an element's id


class Browser:
    """A browser with one window.

    Args:
        downloads: folder that it saves to, None where nothing is downloaded.
        size: (width, height) of what it shows, CSS pixels.
        dark: whether the system prefers dark colours.
    """

    def __init__(self, downloads: Path | None = None, size: tuple[int, int] = (1280, 800), dark: bool = False) -> None:
        driver = shutil.which("chromedriver")
        chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if driver is None or chromium is None:
            pytest.skip("needs chromium and chromedriver")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self._process = subprocess.Popen(
            [driver, f"--port={port}"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        self._address = f"http://127.0.0.1:{port}/session"
        arguments = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run"]
        options = {
            "binary": chromium,
            "args": [*arguments, f"--window-size={size[0]},{size[1]}", *(["--force-dark-mode"] if dark else [])],
            "prefs": {"download.default_directory": str(downloads or ""), "download.prompt_for_download": False},
        }
        try:
            self._start(
                {"browserName": "chrome", "goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
            )
            metrics = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": size[0] < 600}
            self.command("Emulation.setDeviceMetricsOverride", **metrics)
        except BaseException:
            self.close()
            raise

    def _start(self, capabilities: dict[str, Any]) -> None:
        end = time.monotonic() + 60
        while True:
            try:
                made = self._ask("", {"capabilities": {"alwaysMatch": capabilities}})
                break
            except OSError:  # it does not listen yet
                if time.monotonic() > end:
                    raise
                time.sleep(0.1)
        self._address += f"/{made['sessionId']}"

    def _ask(self, path: str, body: Any = None, method: str = "POST") -> Any:
        data = None if method != "POST" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(json.load(error)["value"]["message"]) from None

    def command(self, name: str, **parameters: Any) -> Any:
        """A command of Chrome's own protocol."""
        return self._ask("/goog/cdp/execute", {"cmd": name, "params": parameters})

    def open(self, address: str) -> None:
        self._ask("/url", {"url": address})

    def run(self, script: str, *arguments: Any) -> Any:
        """What a piece of JavaScript returns."""
        return self._ask("/execute/sync", {"script": script, "args": list(arguments)})

    def wait(self, condition: str, seconds: float = 60) -> None:
        """Wait until an expression in JavaScript is true."""
        end = time.monotonic() + seconds
        while not self.run(f"return Boolean({condition})"):
            assert time.monotonic() < end, f"not {condition}; {self.run('return document.body.innerText')}"
            time.sleep(0.05)

    def wait_for(self, selector: str) -> None:
        """Wait until an element is there."""
        self.wait(f"document.querySelector({json.dumps(selector)})")

    def find(self, selector: str) -> str:
        """The first element of a CSS selector, as the protocol names it."""
        found: str = self._ask("/element", {"using": "css selector", "value": selector})[ELEMENT]
        return found

    def type(self, selector: str, keys: str) -> None:
        """Type keys into an element."""
        self._ask(f"/element/{self.find(selector)}/value", {"text": keys})

    def choose_file(self, selector: str, *paths: Path) -> None:
        """Give files to an <input type=file>."""
        self.type(selector, "\n".join(map(str, paths)))

    def click(self, selector: str) -> None:
        self._ask(f"/element/{self.find(selector)}/click")

    def drag_element(self, selector: str, dx: int, kind: str = "mouse") -> None:
        """Press at an element's middle, move to the right by some pixels, and let go."""
        start = {"type": "pointerMove", "origin": {ELEMENT: self.find(selector)}, "x": 0, "y": 0}
        move = {"type": "pointerMove", "origin": "pointer", "x": dx, "y": 0, "duration": 100}
        steps = [start, {"type": "pointerDown", "button": 0}, move, {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": steps}
        self._ask("/actions", {"actions": [pointer]})

    def drag(self, points: list[tuple[float, float]], kind: str = "mouse") -> None:
        """Press at the first of some places in the window, move along the others, and let go."""
        moves = [{"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)} for x, y in points]
        actions = [moves[0], {"type": "pointerDown", "button": 0}, *moves[1:], {"type": "pointerUp", "button": 0}]
        pointer = {"type": "pointer", "id": kind, "parameters": {"pointerType": kind}, "actions": actions}
        self._ask("/actions", {"actions": [pointer]})

    def press(self, keys: str, *, hold: str = "") -> None:
        """Type keys, with others held down meanwhile; those without a character have one of WebDriver's."""
        down = [{"type": "keyDown", "value": key} for key in hold]
        typed = [{"type": kind, "value": key} for key in keys for kind in ("keyDown", "keyUp")]
        up = [{"type": "keyUp", "value": key} for key in hold]
        self._ask("/actions", {"actions": [{"type": "key", "id": "keys", "actions": [*down, *typed, *up]}]})

    def log(self) -> list[str]:
        """What the browser complains of, such as errors of scripts and breaches of the content security policy."""
        return [entry["message"] for entry in self._ask("/se/log", {"type": "browser"})]

    def screenshot(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self._ask("/screenshot", method="GET")))

    def close(self) -> None:
        """End the browser and what drives it."""
        with contextlib.suppress(OSError, AssertionError):
            self._ask("", method="DELETE")
        self._process.terminate()
        self._process.wait(30)
