"""A server with a process tree as vLLM has one: `tree_server.py PORT NAME FILE`, with the standard library only.

The leader serves; its child is the engine; the engine's child is a worker in a session of its own. The end of the
worker is the engine's end, and the leader, which then can do nothing more, exits with 0.
"""

import json
import os
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SHARDS = 4
TOKENS_PER_SECOND = 20


class Handler(BaseHTTPRequestHandler):
    """Health, and completions: one token, or a stream of `max_tokens` at a steady pace."""

    protocol_version = "HTTP/1.0"
    name = ""

    def do_GET(self) -> None:
        self.answer({"status": "ok"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert asked["model"] == self.name, asked
        if asked.get("stream"):
            self.stream(asked["max_tokens"])
        else:
            self.answer({"choices": [{"text": "token"}], "model": self.name})

    def stream(self, tokens: int) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for number in range(tokens):
            self.wfile.write(b'data: {"choices": [{"text": "token %d"}]}\n\n' % number)
            time.sleep(1 / TOKENS_PER_SECOND)
        self.wfile.write(b"data: [DONE]\n\n")

    def answer(self, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass


def start_engine() -> int:
    """The pid of a child that lives as long as its own child, once that runs."""
    there, tell = os.pipe()
    if pid := os.fork():
        os.read(there, 1)
        return pid
    if (worker := os.fork()) == 0:
        os.setsid()
        os.write(tell, b"!")
        threading.Event().wait()
    os.waitpid(worker, 0)
    os._exit(1)


def main() -> None:
    """Start the tree, "load" the file, and serve until the engine ends."""
    port, Handler.name, file = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    engine = start_engine()
    size = os.path.getsize(file)
    for shard in range(SHARDS):
        print(f"read {shard + 1} of {SHARDS} parts, {size * (shard + 1) // SHARDS} bytes", flush=True)
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    os.waitpid(engine, 0)
    print("engine ended", flush=True)
    os._exit(0)


if __name__ == "__main__":
    main()
