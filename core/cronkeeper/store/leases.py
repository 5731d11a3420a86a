"""The second witness of a worker's life. Ages are told by the database's clock alone: the fleet's clocks may differ."""

from __future__ import annotations

import time
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from cronkeeper.domain.placement import Lease, WorkerInfo
from cronkeeper.errors import WireFormatError
from cronkeeper.ports import Beat
from cronkeeper.store.flavour import names
from cronkeeper.store.session import Database
from cronkeeper.store.terms import hold_term
from cronkeeper.wire.znodes import decode_worker, encode_worker

_COLUMNS = ("worker", "incarnation", "lost_incarnation", "beat_ms", "clock_offset_ms", "info")


class SqlLeaseStore:
    """See cronkeeper.ports.LeaseStore."""

    def __init__(self, db: Database) -> None:
        self._db = db
        self._flavour = db.flavour

    def beat(self, info: WorkerInfo, *, local_ms: int) -> Beat:
        begun = time.monotonic()

        def body(conn: Connection) -> Beat:
            asked = time.monotonic()
            now = int(conn.exec_driver_sql(f"SELECT {self._flavour.now_ms}").scalar_one())
            answered = time.monotonic()
            # The database read its clock about half-way between our question and its answer.
            elapsed_ms = ((asked + answered) / 2 - begun) * 1000
            offset = local_ms + round(elapsed_ms) - now
            return Beat(offset, lost=not self._renew(conn, info, offset))

        return self._db.statement(body, repeatable=True)

    def leases(self) -> list[Lease]:
        text = (
            "SELECT `worker`, `incarnation`, `incarnation` = `lost_incarnation`,"
            f" {self._flavour.now_ms} - `beat_ms`, `clock_offset_ms`, `info` FROM `leases` ORDER BY `worker`"
        )
        rows = self._db.read(lambda conn: conn.exec_driver_sql(text).all())
        return [_from_row(row) for row in rows]

    def declare_lost(self, worker: str, *, incarnation: str, stale_ms: int, term: int) -> bool:
        mark = self._flavour.mark
        text = (
            "UPDATE `leases` SET `lost_incarnation` = `incarnation`"
            f" WHERE `worker` = {mark} AND `incarnation` = {mark}"
            f" AND (`lost_incarnation` = `incarnation` OR {self._flavour.now_ms} - `beat_ms` >= {mark})"
        )

        def body(conn: Connection) -> bool:
            hold_term(conn, self._flavour, term)
            return conn.exec_driver_sql(text, (worker, incarnation, stale_ms)).rowcount == 1

        return self._db.transaction(body, repeatable=True)

    def release(self, worker: str, *, incarnation: str) -> None:
        mark = self._flavour.mark
        text = f"UPDATE `leases` SET `beat_ms` = 0 WHERE `worker` = {mark} AND `incarnation` = {mark}"
        self._db.statement(lambda conn: conn.exec_driver_sql(text, (worker, incarnation)).rowcount, repeatable=True)

    def _renew(self, conn: Connection, info: WorkerInfo, offset: int) -> bool:
        """Write the beat; False when this incarnation was declared lost."""
        mark = self._flavour.mark
        update = (
            f"UPDATE `leases` SET `incarnation` = {mark}, `beat_ms` = {self._flavour.now_ms},"
            f" `clock_offset_ms` = {mark}, `info` = {mark} WHERE `worker` = {mark} AND `lost_incarnation` <> {mark}"
        )
        encoded = encode_worker(info)
        values = (info.epoch, offset, encoded, info.id, info.epoch)
        if conn.exec_driver_sql(update, values).rowcount == 1:
            return True
        insert = (
            f"INSERT INTO `leases` ({names(_COLUMNS)})"
            f" VALUES ({mark}, {mark}, '', {self._flavour.now_ms}, {mark}, {mark})"
        )
        try:
            conn.exec_driver_sql(insert, (info.id, info.epoch, offset, encoded))
        except IntegrityError:
            return False
        return True


def _from_row(row: Any) -> Lease:
    worker, incarnation, lost, age_ms, clock_offset_ms, info = row
    return Lease(worker, incarnation, max(0, int(age_ms)), bool(lost), clock_offset_ms, _info(bytes(info)))


def _info(raw: bytes) -> WorkerInfo | None:
    try:
        return decode_worker(raw)
    except WireFormatError:
        return None
