"""What a crontab entry runs: tells the daemon to look, and is gone in some milliseconds.

    python -ISs fire.py <daemon's folder> <daemon's python> [<state folder> <uid> <gid>] <number>

It loads nothing but what is built into the interpreter. Only when the daemon does not answer within two seconds does it
turn into `cronkeeper_worker.away`, which decides and runs in the daemon's place. It prints nothing: cron would mail it.

Where the node has a root part, cron runs this as root, and the daemon's account is named: as that it asks, and as that
alone it stands in. As root it does one thing: it starts a root part if there is none.
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


def look_as(uid: int, gid: int, path: str, number: str) -> bool:
    """Look as the daemon's account: whatever it has put in the place of its socket is no business of root's."""
    groups = os.getgroups()
    os.setgroups([gid])
    os.setegid(gid)
    os.seteuid(uid)
    try:
        return look(path, number)
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def stand_in_as(uid: int, gid: int, python: str, top: str) -> None:
    """See to it that there is a root part, and be root no more."""
    sys.path.append(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    from cronkeeper_worker import root_part

    root_part.start(top, python)
    root_part.drop(uid, gid)


def main(state_dir: str, python: str, *words: str) -> None:
    """Look; become the stand-in if nobody answers."""
    *split, number = words
    path = f"{state_dir}/fire.sock"
    if not split or os.geteuid() != 0:
        if look(path, number):
            return
    else:
        top, uid, gid = split[0], int(split[1]), int(split[2])
        if look_as(uid, gid, path, number):
            return
        stand_in_as(uid, gid, python, top)
    os.execv(python, [python, "-m", "cronkeeper_worker.away", state_dir, number])  # noqa: S606


if __name__ == "__main__":
    main(*sys.argv[1:])
