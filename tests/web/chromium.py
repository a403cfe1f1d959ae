"""A real Chromium, driven through a pipe by the DevTools protocol: no driver, no web socket.

Messages are JSON, each ended by a NUL byte: commands go in at descriptor 3, answers and events come
out at descriptor 4 (`--remote-debugging-pipe`).
"""

import fcntl
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self

import pytest

WAIT_S: Final = 30.0
_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
_OPTIONS: Final = (
    "--headless",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--disable-component-update",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
# Chromium wants its pipes at 3 and 4; ours lie above, so that neither `dup2` hits the other.
_LAUNCH: Final = """\
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.dup2(int(sys.argv[2]), 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""
_GONE: Final = ("context", "navigated", "Cannot find")
"""Words of what is answered to a question that a navigation overtook."""


class Chromium:
    """A browser with a fresh profile; fails the test where there is no Chromium."""

    def __init__(self) -> None:
        found = [path for name in _NAMES if (path := shutil.which(name))]
        if not found:
            pytest.fail("Chromium is missing; install it, for example: apt-get install chromium")
        self._path = found[0]
        self._next = 0
        self._answers: dict[int, dict[str, Any]] = {}
        self._tabs: dict[str, Tab] = {}
        self._incoming: queue.Queue[dict[str, Any] | None] = queue.Queue()

    def __enter__(self) -> Self:
        self._profile = tempfile.mkdtemp(prefix="patchbay-chromium-")
        theirs_in, ours_out = (_high(each) for each in os.pipe())
        ours_in, theirs_out = (_high(each) for each in os.pipe())
        root = ("--no-sandbox",) if os.geteuid() == 0 else ()
        self._process = subprocess.Popen(  # noqa: S603
            [
                *(sys.executable, "-c", _LAUNCH, str(theirs_in), str(theirs_out)),
                *(self._path, *_OPTIONS, *root, f"--user-data-dir={self._profile}", "about:blank"),
            ],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._out = os.fdopen(ours_out, "wb", buffering=0)
        self._in = os.fdopen(ours_in, "rb")
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(WAIT_S)
        self._reader.join(WAIT_S)
        self._out.close()
        self._in.close()
        shutil.rmtree(self._profile, ignore_errors=True)

    def tab(self) -> "Tab":
        """A new tab with cookies of its own."""
        context = self.ask("Target.createBrowserContext")["browserContextId"]
        target = self.ask("Target.createTarget", url="about:blank", browserContextId=context)
        attached = self.ask("Target.attachToTarget", targetId=target["targetId"], flatten=True)
        tab = Tab(self, attached["sessionId"], context)
        self._tabs[tab.session] = tab
        for domain in ("Page", "Runtime", "Log", "Network"):
            tab.ask(f"{domain}.enable")
        return tab

    def ask(self, method: str, session: str | None = None, /, **parameters: Any) -> dict[str, Any]:
        """Send a command and wait for its answer; raises `AssertionError` with what it says."""
        self._next += 1
        number = self._next
        command: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        self._out.write(json.dumps(command).encode() + b"\0")
        deadline = time.monotonic() + WAIT_S
        while number not in self._answers:
            self.hear(deadline - time.monotonic())
        answer = self._answers.pop(number)
        assert "error" not in answer, (method, answer["error"])
        result: dict[str, Any] = answer["result"]
        return result

    def hear(self, timeout_s: float) -> None:
        """Take in one message."""
        try:
            message = self._incoming.get(timeout=max(timeout_s, 0.001))
        except queue.Empty:
            pytest.fail(f"Chromium said nothing for {WAIT_S:.0f} s")
        if message is None:
            pytest.fail("Chromium ended")
        if "id" in message:
            self._answers[message["id"]] = message
        elif (tab := self._tabs.get(message.get("sessionId", ""))) is not None:
            tab.note(message["method"], message["params"])

    def _read(self) -> None:
        rest = b""
        while part := os.read(self._in.fileno(), 65536):
            *whole, rest = (rest + part).split(b"\0")
            for message in whole:
                self._incoming.put(json.loads(message))
        self._incoming.put(None)


@dataclass
class Tab:
    """A page as its reader sees it, with all that it fetched and all that went wrong."""

    browser: Chromium
    session: str
    context: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    """Console messages, uncaught errors, refusals of the policy."""
    _loads: int = 0

    def ask(self, method: str, /, **parameters: Any) -> dict[str, Any]:
        """Send a command to this tab."""
        return self.browser.ask(method, self.session, **parameters)

    def note(self, method: str, event: dict[str, Any]) -> None:
        """Take in an event."""
        match method:
            case "Page.loadEventFired":
                self._loads += 1
            case "Network.requestWillBeSent":
                self.requests.append(event["request"]["url"])
            case "Runtime.consoleAPICalled":
                self.complaints.append(str([each.get("value") for each in event["args"]]))
            case "Runtime.exceptionThrown":
                self.complaints.append(str(event["exceptionDetails"]))
            case "Log.entryAdded":
                self.complaints.append(event["entry"]["text"])
            case _:
                pass

    def size(self, width: int, height: int = 900, *, dark: bool = False) -> None:
        """Set the size of the window, and what its reader prefers."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.ask("Emulation.setEmulatedMedia", features=[scheme])

    def open(self, url: str) -> None:
        """Go to an address and wait until it has loaded."""
        before = self._loads
        self.ask("Page.navigate", url=url)
        deadline = time.monotonic() + WAIT_S
        while self._loads == before:
            self.browser.hear(deadline - time.monotonic())

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression, in the page."""
        answer = self.ask(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, expression: str, timeout_s: float = WAIT_S) -> None:
        """Wait until an expression holds, across navigations."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            try:
                if self.value(expression):
                    return
            except AssertionError as error:
                if not any(word in str(error) for word in _GONE):
                    raise
            time.sleep(0.05)
        pytest.fail(f"never came true: {expression}; the page says: {self.text()[:2000]}")

    def click(self, selector: str) -> None:
        """Press the mouse where an element stands."""
        quoted = json.dumps(selector)
        self.value(f"document.querySelector({quoted}).scrollIntoView({{block: 'center'}})")
        box = self.value(
            f"(b => [b.x + b.width / 2, b.y + b.height / 2])"
            f"(document.querySelector({quoted}).getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            self.ask(
                "Input.dispatchMouseEvent",
                type=kind,
                x=box[0],
                y=box[1],
                button="left",
                clickCount=1,
            )

    def text(self) -> str:
        """What stands on the page."""
        return str(self.value("document.body?.innerText ?? ''"))

    def until_says(self, words: str) -> None:
        """Wait until these words stand on the page."""
        self.until(f"(document.body?.innerText ?? '').includes({json.dumps(words)})")

    def allow_clipboard(self, origin: str) -> None:
        """Let scripts of a page read what they copied."""
        self.browser.ask(
            "Browser.grantPermissions",
            permissions=["clipboardReadWrite", "clipboardSanitizedWrite"],
            origin=origin,
            browserContextId=self.context,
        )


def _high(descriptor: int) -> int:
    """The same pipe at a number that Chromium's own do not have."""
    high = fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, 10)
    os.close(descriptor)
    return high
