"""Serves the page next to this file, an export and LiteRT.js to browsers on this machine.

    python export/web/serve.py --model_dir=out/demo/tflite

Then open the address that it prints. `tools/setup_browser.sh` installs LiteRT.js.
"""

import functools
import http.server
import pathlib
import urllib.parse

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model_dir", "out/demo/tflite", "Folder of an export, mode percentage_input.")
flags.DEFINE_string("node_modules", ".tools/web/node_modules", "Folder with @litertjs/core.")
flags.DEFINE_integer("port", 8000, "Port; 0 takes a free one.", lower_bound=0, upper_bound=65535)

PAGE = pathlib.Path(__file__).resolve().parent  # the other files lie there, not next to a link
TYPES = {
    ".css": "text/css",
    ".html": "text/html",
    ".js": "text/javascript",
    ".json": "application/json",
    ".tflite": "application/octet-stream",
    ".wasm": "application/wasm",
}


class Handler(http.server.SimpleHTTPRequestHandler):
    """Answers with files of these types from these folders; all else is not there.

    Args:
        folders: {first part of the URL's path: folder}; that of "" is the page.
    """

    protocol_version = "HTTP/1.1"
    extensions_map = TYPES

    def __init__(self, *arguments, folders: dict[str, pathlib.Path]):
        self.folders = folders
        super().__init__(*arguments)

    def translate_path(self, path):
        name = urllib.parse.unquote(urllib.parse.urlsplit(path).path).lstrip("/") or "index.html"
        first, _, rest = name.partition("/")
        if first in self.folders:
            return str(self.folders[first] / rest)
        return str(self.folders[""] / name)

    def send_head(self):
        try:
            # Resolved, because `..` and links lead out of a folder.
            file = pathlib.Path(self.translate_path(self.path)).resolve(strict=True)
        except (OSError, ValueError):  # no such file; a null byte in the name
            file = None
        if (
            file is None
            or not file.is_file()
            or file.suffix not in TYPES
            or not any(file.is_relative_to(folder) for folder in self.folders.values())
        ):
            self.send_error(404)
            return None
        return super().send_head()

    def end_headers(self):
        # An isolated page may read the time in steps of 5 us instead of 100, as a latency needs.
        self.send_header("Cross-Origin-Opener-Policy", "same-origin")
        self.send_header("Cross-Origin-Embedder-Policy", "require-corp")
        # A new export is seen at the next reload.
        self.send_header("Cache-Control", "no-cache")
        super().end_headers()

    def log_message(self, *arguments):
        pass


def main(_):
    model, modules = (pathlib.Path(p).resolve() for p in (FLAGS.model_dir, FLAGS.node_modules))
    if not (model / "manifest.json").is_file():
        raise app.UsageError(
            f"--model_dir must be the folder of an export, with manifest.json; `make demo` writes "
            f"one. Received: {FLAGS.model_dir}"
        )
    if not (modules / "@litertjs" / "core").is_dir():
        raise app.UsageError(
            f"--node_modules must hold @litertjs/core; tools/setup_browser.sh installs it. "
            f"Received: {FLAGS.node_modules}"
        )
    folders = {"": PAGE, "model": model, "node_modules": modules}
    handler = functools.partial(Handler, folders=folders)
    try:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", FLAGS.port), handler)
    except OSError as error:
        raise app.UsageError(
            f"--port={FLAGS.port} cannot be used ({error.strerror}). Choose another; 0 takes a "
            "free one."
        ) from error
    with server:
        print(f"http://localhost:{server.server_port}/ (stop with Ctrl-C)", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    app.run(main)
