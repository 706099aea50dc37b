"""HTTP servers and clients with connections that stay open.

    web.py serve ADDRESS PORT           each answer is ADDRESS
    web.py ask ADDRESS PORT PERIOD_S N  N clients keep a connection, and one opens a new one for
                                        each request, until SIGTERM

Both print a line of JSON per event: a server when it listens, clients one for each request.
"""

from __future__ import annotations

import http.client
import json
import signal
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

TIMEOUT_S = 2.0


class Server(ThreadingHTTPServer):
    daemon_threads = True
    allow_reuse_address = True
    request_queue_size = 128


def serve(address: str, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = address.encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nothing: the log has events only."""

    server = Server((address, port), Handler)
    print(json.dumps({"listens": address}), flush=True)
    server.serve_forever()


def request(connection: http.client.HTTPConnection) -> str:
    connection.request("GET", "/")
    return connection.getresponse().read().decode()


class Clients:
    def __init__(self, address: str, port: int, period_s: float) -> None:
        self._end = (address, port)
        self._period_s = period_s
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        self._stop.set()

    def keep(self, number: int) -> None:
        """Requests on one connection, until it breaks."""
        connection = http.client.HTTPConnection(*self._end, timeout=TIMEOUT_S)
        while not self._stop.wait(self._period_s):
            if not self._ask(connection, f"kept{number}"):
                return

    def renew(self) -> None:
        """Each request on a connection of its own."""
        while not self._stop.wait(self._period_s):
            connection = http.client.HTTPConnection(*self._end, timeout=TIMEOUT_S)
            self._ask(connection, "new")
            connection.close()

    def _ask(self, connection: http.client.HTTPConnection, client: str) -> bool:
        began = time.monotonic()
        found = {"client": client, "began": began, "server": "", "error": ""}
        try:
            found["server"] = request(connection)
        except (OSError, http.client.HTTPException) as error:
            found["error"] = type(error).__name__
        with self._lock:
            print(json.dumps(found), flush=True)
        return not found["error"]


def ask(address: str, port: int, period_s: float, n_kept: int) -> None:
    clients = Clients(address, port, period_s)
    signal.signal(signal.SIGTERM, lambda *_: clients.stop())
    threads = [threading.Thread(target=clients.keep, args=(i,)) for i in range(n_kept)]
    threads.append(threading.Thread(target=clients.renew))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        ask(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
