"""A backend to be tried out on: serves HTTP as an inference server does, and misbehaves as its one argument tells it
to.

Started by itself (`python fake_server.py PORT {"json": …}`), with the standard library only, so that it starts in 50
ms.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar


def fork_sleeper(*, setsid: bool = False, stubborn: bool = False, twice: bool = False) -> int:
    """A child that does nothing for an hour.

    With `setsid` it leaves group and session, with `twice` it is forked twice and so nobody's child any more, and
    `stubborn` ignores SIGTERM.
    """
    reader, writer = os.pipe()
    pid = os.fork()
    if pid:
        os.close(writer)
        with open(reader) as told:
            word = told.read()
        if word:
            os.waitpid(pid, 0)
        return int(word or pid)
    if setsid:
        os.setsid()
    if twice and (grandchild := os.fork()):
        os.write(writer, str(grandchild).encode())
        os._exit(0)
    if stubborn:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return os.execv(sys.executable, [sys.executable, "-c", _SLEEPER.replace("STUBBORN", str(stubborn))])


_SLEEPER = """
import signal, time
if STUBBORN: signal.signal(signal.SIGTERM, signal.SIG_IGN)
time.sleep(3600)
"""


class Handler(BaseHTTPRequestHandler):
    """Answers, and takes orders on /control."""

    state: ClassVar[dict[str, Any]] = {"status": 200}
    has_answered: ClassVar[bool] = False

    def do_GET(self) -> None:
        if self.path == "/control/pids":
            self.answer(200, {"pids": PIDS})
        elif self.has_answered and "exit_once_loaded" in self.state:
            os._exit(self.state["exit_once_loaded"])  # after its question was answered, a runner only probes
        else:
            self.answer(self.state["status"], {"status": self.state["status"]})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        order = json.loads(body or b"{}")
        if self.path == "/control":
            if "status" in order:
                self.state["status"] = order["status"]
            if "say" in order:
                print(order["say"], flush=True)
            self.answer(200, {})  # all is done by now, but for the end
            if "exit" in order:
                os._exit(order["exit"])
        elif self.path == "/stream":
            self.stream()
        else:
            type(self).has_answered = True
            self.answer(self.state["status"], {"answer": "yes", "model": order.get("model")})

    def stream(self) -> None:
        """One byte a tenth of a second, until the client leaves."""
        self.send_response(200)
        self.end_headers()
        while True:
            self.wfile.write(b".")
            self.wfile.flush()
            time.sleep(0.1)

    def answer(self, status: int, document: object) -> None:
        body = json.dumps(document).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
        pass


PIDS: list[int] = [os.getpid()]


def told_to(steps: list[Any]) -> Iterator[Any]:
    """One step after the other; None among them is to wait for a word on standard input."""
    for step in steps:
        if step is None:
            sys.stdin.readline()
        else:
            yield step


def main() -> None:
    """Do what the argument says, in this order."""
    port, behaviour = int(sys.argv[1]), json.loads(sys.argv[2])
    if "farewell" in behaviour:
        signal.signal(signal.SIGTERM, lambda *_: (print(behaviour["farewell"], flush=True), os._exit(0)))
    if behaviour.get("stubborn"):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    PIDS.extend(fork_sleeper(**child) for child in behaviour.get("children", []))
    for line in told_to(behaviour.get("lines", [])):
        print(line, flush=True)
        time.sleep(behaviour.get("line_pause", 0.0))
    if "read" in behaviour:
        weights = os.open(behaviour["read"], os.O_RDONLY)  # is left open, for the kernel to tell how far it was read
        for size in told_to(behaviour["sizes"]):
            os.read(weights, size)
    if "fail" in behaviour:
        print("E: cannot load the model: it is broken", file=sys.stderr, flush=True)
        sys.exit(behaviour["fail"])
    if behaviour.get("hang"):
        threading.Event().wait()
    if behaviour.get("daemonise"):
        subprocess.Popen([sys.executable, __file__, str(port), "{}"], start_new_session=True)
        sys.exit(0)
    Handler.state = {"status": 200, **behaviour}
    ThreadingHTTPServer.allow_reuse_address = True
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    assert server.socket.family is socket.AF_INET
    print("READY", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
