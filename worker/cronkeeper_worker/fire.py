"""What a crontab entry runs: tells the daemon to look, and is gone in some milliseconds.

    python -ISs fire.py <state folder> <daemon's python> <number>

It loads nothing but what is built into the interpreter. Only when the daemon does not answer within two seconds does it
turn into `cronkeeper_worker.away`, which decides and runs in the daemon's place. It prints nothing: cron would mail it.
"""

import _socket  # `socket` would double the start-up time
import os
import sys

ANSWER_S = 2.0
#: While the daemon's queue of connections is full, the kernel refuses at once instead of waiting.
PAUSE_S = 0.05


def look(path: str, number: str) -> bool:
    """Say to the daemon that it is time to look. True when it has taken note."""
    for _ in range(int(ANSWER_S / PAUSE_S)):
        connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            connection.settimeout(ANSWER_S)
            connection.connect(path)
            connection.send(f"look {number}\n".encode())
            return connection.recv(16) == b"ok\n"
        except BlockingIOError:
            import time

            time.sleep(PAUSE_S)
        except OSError:
            return False
        finally:
            connection.close()
    return False


def main(state_dir: str, python: str, number: str) -> None:
    """Look; become the stand-in if nobody answers."""
    if not look(f"{state_dir}/fire.sock", number):
        os.execv(python, [python, "-m", "cronkeeper_worker.away", state_dir, number])  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:4])
