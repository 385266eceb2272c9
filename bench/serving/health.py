"""A light process that asks /health every 100 ms: ``python health.py HOST PORT``, until its standard input closes.

It prints one line a probe: when it was due (seconds of the monotonic clock), the seconds from then until the answer was
there, and the status. A probe that is due while the one before is unanswered counts from when it was due.
"""

from __future__ import annotations

import select
import socket
import sys
from time import perf_counter, sleep

EVERY_S = 0.1
TIMEOUT_S = 30.0


def main(host: str, port: int) -> None:
    """Probe until told to stop."""
    connection = _connected(host, port)
    due_s = perf_counter()
    while not select.select([sys.stdin], [], [], 0)[0]:
        sleep(max(0.0, due_s - perf_counter()))
        try:
            status = _probe(connection, host)
        except OSError:
            status = 0
            connection.close()
            connection = _connected(host, port)
        print(f"{due_s:.6f} {perf_counter() - due_s:.6f} {status}", flush=True)
        due_s += EVERY_S


def _connected(host: str, port: int) -> socket.socket:
    connection = socket.create_connection((host, port), timeout=TIMEOUT_S)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def _probe(connection: socket.socket, host: str) -> int:
    connection.sendall(f"GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    answer = b""
    while b"\r\n\r\n" not in answer or not answer.endswith(b"}"):
        piece = connection.recv(65536)
        if not piece:
            raise ConnectionResetError
        answer += piece
    return int(answer.split(None, 2)[1])


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
