"""Chromium without a window, over the DevTools protocol: its pipe, which needs no library."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
import time
from typing import Any

EXECUTABLE = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("chrome")
_SECONDS = 60


class Browser:
    """A browser with one tab; `said` has its console's errors and what it was refused."""

    def __init__(self, folder: Any) -> None:
        to_browser, from_us = os.pipe()
        from_browser, to_us = os.pipe()

        def place() -> None:
            read, write = os.dup(to_browser), os.dup(to_us)
            os.dup2(read, 3)
            os.dup2(write, 4)

        flags = "--headless=new --no-sandbox --disable-gpu --remote-debugging-pipe --no-first-run"
        quiet = "--disable-background-networking --disable-component-update --disable-sync"
        self._process = subprocess.Popen(
            [
                EXECUTABLE,
                *flags.split(),
                *quiet.split(),
                f"--user-data-dir={folder}",
                "about:blank",
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=place,
            pass_fds=(3, 4),
        )
        for end in to_browser, to_us:
            os.close(end)
        self._write, self._read, self._rest = from_us, from_browser, b""
        self._number = itertools.count(1)
        self.said: list[str] = []
        self._session = None
        target = self.do("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.do("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.do(f"{domain}.enable")

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(20)
        os.close(self._write)
        os.close(self._read)

    def do(self, method: str, **params: Any) -> dict[str, Any]:
        """What the browser answers."""
        number = next(self._number)
        message = {"id": number, "method": method, "params": params}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._message()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _message(self) -> dict[str, Any]:
        deadline = time.monotonic() + _SECONDS
        while b"\0" not in self._rest:
            if not select.select([self._read], [], [], deadline - time.monotonic())[0]:
                raise TimeoutError("the browser says nothing")
            self._rest += os.read(self._read, 1 << 16)
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        params = message.get("params", {})
        if message.get("method") == "Runtime.exceptionThrown":
            self.said.append(params["exceptionDetails"]["exception"]["description"])
        elif message.get("method") == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.said.append(params["entry"]["text"])
        elif message.get("method") == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.said.append(str(params["args"]))
        return message

    def run(self, script: str) -> Any:
        """The value of an expression, or of what it promises."""
        found = self.do(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(found["exceptionDetails"]["exception"].get("description"))
        return found["result"].get("value")

    def open(
        self,
        address: str,
        width: int = 1280,
        height: int = 900,
        *,
        dark: bool = False,
        until: str = "document.documentElement?.matches('[data-ready]')",
    ) -> None:
        """Opens a page, and waits until it is there, as the explorer says itself."""
        self.do(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.do("Emulation.setEmulatedMedia", features=[scheme])
        self.do("Page.navigate", url=address)
        self.wait(until)

    def wait(self, condition: str) -> None:
        """Until an expression is true."""
        deadline = time.monotonic() + _SECONDS
        while not self.run(condition):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{condition}; said: {self.said}")
            time.sleep(0.05)

    def settle(self) -> None:
        """Until what was begun is painted."""
        for _ in range(3):
            self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 30)))")

    def key(self, name: str, code: int) -> None:
        """Presses and lets go of a key."""
        for kind in "rawKeyDown", "keyUp":
            self.do(
                "Input.dispatchKeyEvent", type=kind, key=name, code=name, windowsVirtualKeyCode=code
            )

    def drag(self, *places: tuple[float, float]) -> None:
        """Moves the mouse, its button held, from place to place."""
        for i, (x, y) in enumerate(places):
            kind = "mouseMoved" if i else "mousePressed"
            self.do("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        x, y = places[-1]
        self.do(
            "Input.dispatchMouseEvent", type="mouseReleased", x=x, y=y, button="left", clickCount=1
        )

    def files(self, selector: str, *paths: Any) -> None:
        """Gives an input its files, as a user does."""
        root = self.do("DOM.getDocument")["root"]["nodeId"]
        node = self.do("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.do("DOM.setFileInputFiles", files=[str(path) for path in paths], nodeId=node)

    def picture(self, *, whole: bool = False) -> bytes:
        """A PNG of what is seen."""
        found = self.do("Page.captureScreenshot", captureBeyondViewport=whole)
        return base64.b64decode(found["data"])
