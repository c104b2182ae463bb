"""A headless Chromium, driven through its DevTools protocol."""

import base64
import itertools
import json
import os
import pathlib
import subprocess
import tempfile


class Chromium:
    """One page of a new headless Chromium; its protocol runs over a pair of pipes.

    Args:
        program: Name or path of `chromium-headless-shell`.

    Reference:
        https://chromedevtools.github.io/devtools-protocol/
    """

    def __init__(self, program):
        self._directory = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        to_browser, self._out = os.pipe()
        self._in, from_browser = os.pipe()
        self.errors = []  # what no code of the page caught
        self.requests = []  # URLs
        self._numbers = itertools.count()
        self._received = b""
        # The protocol's file descriptors are 3 and 4; Popen keeps the numbers of those it passes.
        self._process = subprocess.Popen(
            [
                *("bash", "-c", f'exec "$0" "$@" 3<&{to_browser} 4>&{from_browser}', program),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking", "--disable-sync"),
                *("--disable-component-update", "--remote-debugging-pipe"),
                f"--user-data-dir={self._directory.name}",
            ],
            pass_fds=(to_browser, from_browser),
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._session = None
        page = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """Sends a command and returns its result."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def _read(self):
        while b"\0" not in self._received:
            part = os.read(self._in, 1 << 16)
            if not part:
                raise RuntimeError("Chromium ended.")
            self._received += part
        text, _, self._received = self._received.partition(b"\0")
        message = json.loads(text)
        if message.get("method") == "Runtime.exceptionThrown":
            details = message["params"]["exceptionDetails"]
            self.errors.append(details.get("exception", details).get("description", str(details)))
        elif message.get("method") == "Network.requestWillBeSent":
            self.requests.append(message["params"]["request"]["url"])
        return message

    def open(self, url, width, height, touch=False):
        """Opens a page in a window of a size in CSS pixels and waits until it is ready or failed.

        A page with an element `status` hides it then.

        Args:
            url: Its address.
            width: Int.
            height: Int.
            touch: Bool, whether it is a phone.
        """
        self.errors.clear()
        self.requests.clear()
        size = {"width": width, "height": height, "deviceScaleFactor": 2 if touch else 1}
        self.send("Emulation.setDeviceMetricsOverride", mobile=touch, **size)
        self.send("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.send("Page.navigate", url=url)
        status = "document.getElementById('status')"
        self.wait(f"document.readyState === 'complete' && ({status}?.hidden ?? true)")

    def run(self, script):
        """Runs the body of an async function in the page and returns what it returns, as JSON."""
        answer = self.send(
            "Runtime.evaluate",
            expression=f"(async () => {{ {script} }})()",
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description"))
        return answer["result"].get("value")

    def wait(self, condition, seconds=60):
        """Waits until a JavaScript expression is true in the page."""
        self.run(
            f"""
            const end = performance.now() + {1000 * seconds};
            while (!({condition})) {{
              if (performance.now() > end) {{
                throw new Error({json.dumps(f"stayed false: {condition}")});
              }}
              await new Promise((done) => setTimeout(done, 20));
            }}"""
        )

    def text(self, element):
        """Returns the text of an element, by its id, with plain spaces."""
        text = self.run(f"return document.getElementById('{element}').textContent")
        return text.replace("\xa0", " ")

    def is_visible(self, element):
        """Returns whether an element is shown, by its id."""
        return self.run(f"return document.getElementById('{element}').checkVisibility()")

    def screenshot(self, path):
        """Writes the whole page, also what is below the window, to a PNG file."""
        data = self.send("Page.captureScreenshot", captureBeyondViewport=True)["data"]
        pathlib.Path(path).write_bytes(base64.b64decode(data))

    def close(self):
        self._process.terminate()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._directory.cleanup()
