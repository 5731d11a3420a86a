"""The ids of new jobs, taken from the table's own counter before their rows are made: what is signed holds the id.

A counter is moved by inserting alone. So rows are inserted that hold the places, and whole rows replace them; for many
jobs at once MariaDB spends more on that than on all else. There, a few places are enough: of a statement that inserts
a known number of rows InnoDB takes as many numbers at once as it has rows, whether or not they need one (its manual
calls that a mixed-mode insert). The others of the statement are doubles of a row of ours, and are ignored.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cronkeeper.errors import UnavailableError
from cronkeeper.ports import NewJob
from cronkeeper.store import job_rows, schema
from cronkeeper.store.flavour import Flavour, Row, chunks, names
from cronkeeper.store.script import Script

_jobs = schema.jobs
#: From so many jobs on numbers are taken without a place for each; and so many of them with one statement.
MANY, _MOST = 100, 5000
_COUNTING = "SELECT @@SESSION.auto_increment_increment, @@GLOBAL.innodb_autoinc_lock_mode"
#: A row that holds a place, by its id alone.
_HOLDS = names(("id", "namespace", *job_rows.COLUMNS[3:7], *job_rows.COLUMNS[8:15]))
_DELETE = "DELETE FROM `jobs` WHERE `id` IN (%s, %s)"
_PLACE = "'', 0, 'paused', '', '', 1, 0, 0, 0, '', '', ''"


@dataclass(frozen=True, slots=True)
class Ids:
    """An id for each new job, ascending, and whether there is a row of that id already."""

    ids: list[int]
    placed: bool


def take(script: Script, flavour: Flavour, new: Sequence[NewJob]) -> Ids:
    """Take an id for each, as part of a transaction. IntegrityError when the name of one is taken already."""
    if not flavour.is_mysql:
        last = max(script.ask("SELECT `seq` FROM `sqlite_sequence` WHERE `name` = 'jobs'").firsts, default=0)
        return Ids([last + 1 + index for index in range(len(new))], placed=False)
    if len(new) >= MANY and script.is_mariadb and script.ask(_COUNTING).rows in ([(1, 1)], [(1, 2)]):
        ids: list[int] = []
        while len(ids) < len(new):
            ids += _numbers(script, min(_MOST, len(new) - len(ids)))
        return Ids(ids, placed=False)
    # In a cluster numbers come in steps; so insert rows that only we can recognise and ask which ids they got. One
    # statement numbers its rows in their order.
    mark, ids = secrets.token_hex(16), []
    for rows in chunks([job_rows.placeholder(item.namespace, item.name, mark) for item in new]):
        ids += _places(script, flavour, rows, mark)
    if 0 in ids:
        # The driver's word for "it did not say": all such jobs would be one.
        raise UnavailableError("the database does not say which number a new job has got")
    return Ids(ids, placed=True)


def _places(script: Script, flavour: Flavour, rows: Sequence[Row], mark: str) -> Sequence[int]:
    answer = script.ask(*flavour.insertion(_jobs, job_rows.COLUMNS[1:], rows, flavour.returning_id))
    if answer.rows is None:
        if len(rows) == 1:
            return [answer.lastrowid]
        text = f"SELECT `id` FROM `jobs` WHERE `id` >= {flavour.mark} AND `search` = {flavour.mark}"
        answer = script.ask(text, (answer.lastrowid, mark))
    return sorted(answer.firsts)


def _numbers(script: Script, count: int) -> list[int]:
    """Take so many numbers of a counter that goes in steps of one; nobody else gets any of them."""
    (first,) = script.ask(f"INSERT INTO `jobs` ({_HOLDS}) VALUES (NULL, {_PLACE}) RETURNING `id`").firsts
    if count == 1:
        script.exec_driver_sql(_DELETE, (first, first))
        return [first]
    doubles = f", ({first}, {_PLACE})" * (count - 2)
    block = f"INSERT IGNORE INTO `jobs` ({_HOLDS}) VALUES (NULL, {_PLACE}){doubles} RETURNING `id`"
    begin = script.ask(block).firsts[0]
    script.exec_driver_sql(_DELETE, (first, begin))
    return [first, *range(begin, begin + count - 1)]
