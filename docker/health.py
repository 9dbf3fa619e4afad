"""A container's health check, in the standard library only: it runs every few seconds.

``health.py URL``: a 200 within 5 s. ``health.py URL TEXT``: and TEXT stands in the answer.
``health.py tcp PORT``: something listens.
"""

import socket
import sys
import urllib.request

TIMEOUT_S = 5


def main() -> None:
    what, *rest = sys.argv[1:]
    if what == "tcp":
        socket.create_connection(("127.0.0.1", int(rest[0])), TIMEOUT_S).close()
        return
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # a proxy is not asked
    with opener.open(what, timeout=TIMEOUT_S) as answer:
        body = answer.read().decode()
    if rest and rest[0] not in body:
        sys.exit(f"{rest[0]!r} is not in the answer")


if __name__ == "__main__":
    main()
