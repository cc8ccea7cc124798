"""A server that loads a shard whenever it may: `step_server.py PORT NAME FOLDER`, with the standard library only.

It draws the bar that transformers draws, on its standard error and in two pieces, cut within a character; and goes on
when `FOLDER/go-N` is there. With `FOLDER/broken` it fails. Asked about "everything" it takes memory until it is ended.
"""

import json
import os
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SHARDS = 4


class Handler(BaseHTTPRequestHandler):
    """Answers with what it was asked and started with."""

    def do_GET(self) -> None:
        self.answer({})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers["Authorization"] != f"Bearer {os.environ['STEP_KEY']}":
            self.send_error(401)
            return
        taken = []
        while asked["input"] == "everything":
            taken.append(os.urandom(1 << 20))
        self.answer({"asked": asked, "path": self.path, "argv": sys.argv[1:], "environment": dict(os.environ)})

    def answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass


def main() -> None:
    port, _, folder = int(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
    if (folder / "broken").exists():
        print("E: cannot map weights: they are too thin", flush=True)
        sys.exit(3)
    for done in range(SHARDS + 1):
        blocks = "█" * (2 * done)
        bar = f"Loading checkpoint shards: {done * 25:3}%|{blocks}▌ | {done}/{SHARDS} [00:0{done}<00:01,  1.00it/s]"
        drawn = b"\r" + bar.encode()
        cut = drawn.index("▌".encode()) + 1
        for piece in (drawn[:cut], drawn[cut:]):
            os.write(2, piece)
        while not (folder / f"go-{done}").exists():
            time.sleep(0.01)
    os.write(2, b"\n")
    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


if __name__ == "__main__":
    main()
