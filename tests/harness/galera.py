"""A Galera cluster of three MariaDB servers."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Self

from tests.harness.hosts import LOOPBACK, Host
from tests.harness.mariadb import MariaDB
from tests.harness.ports import free_port
from tests.harness.processes import ServerError

_SYNC_TIMEOUT_S = 120.0
_PROVIDER_PLACES = (Path("/usr/lib/galera/libgalera_smm.so"), Path("/usr/lib/libgalera_smm.so"))


class Galera:
    """Three servers that certify every commit together; members are numbered 0 to 2.

    A member that was killed or shut down joins again by `start_member`. Two must be alive for the third to join: when
    all are down, `start` makes a new cluster from member 0's data.
    """

    def __init__(self, places: Sequence[Host] = (LOOPBACK,) * 3) -> None:
        password = secrets.token_hex(16)
        group_ports = [free_port() for _ in range(3)]
        self.members = [
            MariaDB(
                f"galera-{number}",
                password=password,
                # The others get the account with the first one's data.
                makes_account=number == 0,
                extra_options=_options(number, place.address, group_ports),
                host=place,
            )
            for number, place in enumerate(places)
        ]
        self._addresses = ",".join(f"{place.address}:{port}" for place, port in zip(places, group_ports, strict=True))

    def start(self) -> Self:
        """Start all three; returns when all are synced."""
        self._start(0, "gcomm://")
        for number in (1, 2):
            self.start_member(number)
        return self

    def stop(self) -> None:
        """Stop all and remove their data."""
        for member in reversed(self.members):
            member.stop()

    def start_member(self, number: int) -> None:
        """Start a member that was stopped or killed; returns when it has caught up with the others."""
        self._start(number, f"gcomm://{self._addresses}")

    def launch_member(self, number: int) -> None:
        """Start a member that was stopped or killed; returns before it has joined: see `wait_synced`."""
        self._set_address(number, f"gcomm://{self._addresses}")
        self.members[number].launch()

    def wait_synced(self, number: int) -> None:
        """Return when a member has caught up with the others."""
        self.members[number].process.wait_until(
            lambda: self.status(number, "wsrep_local_state_comment") == "Synced",
            timeout_s=_SYNC_TIMEOUT_S,
            what="synced",
        )

    def kill_member(self, number: int) -> None:
        """kill -9 one member."""
        self.members[number].kill()

    def pause_member(self, number: int) -> None:
        """SIGSTOP one member: every commit stalls until the others expel it."""
        self.members[number].pause()

    def resume_member(self, number: int) -> None:
        """SIGCONT one member."""
        self.members[number].resume()

    def status(self, number: int, variable: str) -> str:
        """Return one `wsrep_…` status variable of a member; empty if it is not there."""
        rows = self.members[number].execute(f"SHOW GLOBAL STATUS LIKE '{variable}'")
        return str(rows[0][1]) if rows else ""

    def create_database(self, name: str) -> list[str]:
        """Create an empty database; return its URL on each member."""
        self.members[0].create_database(name)
        return [member.url(name) for member in self.members]

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _start(self, number: int, address: str) -> None:
        self._set_address(number, address)
        self.members[number].start()
        self.wait_synced(number)

    def _set_address(self, number: int, address: str) -> None:
        member = self.members[number]
        kept = [option for option in member.process.argv if not option.startswith("--wsrep-cluster-address")]
        member.process.argv = (*kept, f"--wsrep-cluster-address={address}")
        if address == "gcomm://":
            # The mark that forbids a member to found a cluster, because another may know more: here nobody does.
            state = member.data_dir / "grastate.dat"
            if state.exists():
                state.write_text(state.read_text().replace("safe_to_bootstrap: 0", "safe_to_bootstrap: 1"))


def _options(number: int, address: str, group_ports: list[int]) -> list[str]:
    provider = next((path for path in _PROVIDER_PLACES if path.exists()), None)
    if provider is None:
        raise ServerError("galera-4 is not installed; run deploy/install-packages test")
    port, transfer_port, snapshot_port = group_ports[number], free_port(), free_port()
    provider_options = ";".join(
        [
            f"base_host={address}",
            f"base_port={port}",
            f"gmcast.listen_addr=tcp://{address}:{port}",
            f"ist.recv_addr={address}:{transfer_port}",
            f"ist.recv_bind={address}:{transfer_port}",
            "gcache.size=32M",
        ]
    )
    return [
        "--wsrep-on=ON",
        f"--wsrep-provider={provider}",
        "--wsrep-cluster-name=cronkeeper-test",
        f"--wsrep-node-name=member-{number}",
        f"--wsrep-node-address={address}:{port}",
        "--wsrep-sst-method=rsync",
        f"--wsrep-sst-receive-address={address}:{snapshot_port}",
        f"--wsrep-provider-options={provider_options}",
        "--binlog-format=ROW",
        "--default-storage-engine=InnoDB",
        "--innodb-autoinc-lock-mode=2",
    ]
