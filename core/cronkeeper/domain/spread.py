"""Where `H` puts a job: the same place for ever for one name, and even over many names.

A plain hash of 1,000 names over 60 minutes leaves some minute with 1.7 times the mean as often as not; it is as uneven
as dice. People number their jobs, though (`backup-1`, `backup-2`, …), so the numbers in a name are not hashed: each is
multiplied by an irrational number of its own, which puts neighbours as far apart as can be (a Kronecker sequence), and
only the rest of the name decides where such a row begins.
"""

from __future__ import annotations

import hashlib
import math
import re

_BITS = 64
_MASK = (1 << _BITS) - 1
_DIGITS = re.compile(r"[0-9]+", re.ASCII)
#: One prime for each field (columns: second, minute, hour, day, month, weekday) and number of a name (rows; the last
#: row serves all further numbers). Square roots of primes are independent, so fields do not move in step.
_PRIMES = ((31, 5, 2, 3, 13, 7), (37, 11, 17, 19, 29, 23), (61, 41, 43, 47, 59, 53))


def slot(seed: str, field: int, size: int) -> int:
    """Return a number from 0 to `size` - 1 for a name (`seed`) and a field's place: 0 for seconds to 5 for weekdays."""
    digest = hashlib.blake2b(f"{field}\n{_DIGITS.sub('0', seed)}".encode(), digest_size=_BITS // 8).digest()
    point = int.from_bytes(digest, "big")
    for index, digits in enumerate(_DIGITS.findall(seed)):
        point += int(digits[-18:]) * _STEPS[min(index, len(_STEPS) - 1)][field]
    return ((point & _MASK) * size) >> _BITS


def _step(prime: int) -> int:
    """Return the fraction of the prime's square root, in units of 2**-64; of 5, the golden ratio's."""
    root = math.isqrt(prime << (2 * _BITS))
    return ((root + (1 << _BITS)) >> 1 if prime == 5 else root) & _MASK


_STEPS = tuple(tuple(_step(prime) for prime in row) for row in _PRIMES)
