"""Asks a fork server for a program: what `programs.start` sends, and a stand-in for `python` in shell scripts.

    python -I -S fork_client.py SOCKET FOLDER... -- [-m MODULE | -c CODE | FILE] [ARGUMENT]...

runs Python with these arguments and PYTHONPATH, hands SIGINT and SIGTERM on, and ends as the program ends. Where it is
killed, so is the program.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # without typing, which would take as long to import as all else
    from collections.abc import Mapping, Sequence


def request(
    server: str,
    arguments: Sequence[str],
    environment: Mapping[str, str],
    folder: str,
    files: Sequence[int],
    limits: Sequence[tuple[int, int]] = (),
    outlives: bool = False,
) -> socket.socket:
    """The connection to a new program, whose process id and exit code are its lines.

    arguments: as those of `python`; files: descriptors of its input, output and errors, and others, which keep their
    numbers; limits: (resource, value); outlives: whether it goes on when the asker is killed.
    """
    connection = socket.socket(socket.AF_UNIX)
    deadline = time.monotonic() + 120
    while True:
        try:
            connection.connect(server)
            break
        except (FileNotFoundError, ConnectionRefusedError):  # it still imports
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
    asked = {
        "arguments": arguments,
        "environment": environment,
        "folder": folder,
        "limits": limits,
        "numbers": [0, 1, 2, *files[3:]],
        "outlives": outlives,
    }
    line = json.dumps(asked).encode() + b"\n"
    # The descriptors travel with the first byte; the rest may come in pieces.
    socket.send_fds(connection, [line[:1]], files)
    connection.sendall(line[1:])
    return connection


def main() -> None:
    between = sys.argv.index("--")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.argv[2:between])}
    connection = request(sys.argv[1], sys.argv[between + 1 :], environment, os.getcwd(), [0, 1, 2])
    lines = connection.makefile("r")
    process = int(lines.readline())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: os.kill(process, number))
    code = int(lines.readline())
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)


if __name__ == "__main__":
    main()
