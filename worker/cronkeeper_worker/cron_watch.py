"""Does this node's cron live, and does it go by the crontab as it stands? PURE: values in, values out.

Cron tells nobody when it is dead, stopped, or has missed a change of a file and goes by an older text for ever. So each
crontab file of ours has an entry for every minute, the tick, with a number that stands for the file's text: only a cron
that reads the present text calls with the present number.

All times are seconds of the boot-time clock, unless they say otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

#: While cron stays silent, the crontab is put in place anew after so long.
MEND_AGAIN_S = 300.0
#: Who has not looked for so long was stopped or asleep, and cron perhaps too: it gets its whole time again.
STALL_S = 30.0
#: A wall clock that moved so much against the boot-time clock was set; cron then needs up to two minutes to be on time.
CLOCK_SET_S = 5.0


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on both clocks."""

    boot_s: float
    wall_s: float


@dataclass(frozen=True, slots=True)
class Watch:
    """What is known of cron."""

    #: The present ticks, each with when it was heard last, or since when it has been waited for.
    waiting: Mapping[int, float] = field(default_factory=dict)
    #: Those of them that have been heard since they stand there, and since cron was last found silent.
    heard: frozenset[int] = frozenset()
    #: When cron called last, with whatever number, or since when that has been waited for.
    called_s: float = 0.0
    #: The last look, if there was one.
    looked: Now | None = None
    #: Whether cron was found silent, and has not been heard properly since.
    silent: bool = False
    mended_s: float | None = None


@dataclass(frozen=True, slots=True)
class Finding:
    """What a look has found, and what is to be done about it."""

    #: True while cron is silent although there is something to hear.
    silent: bool = False
    #: `cron.silent` or `cron.back`, once for each change; empty otherwise.
    news: str = ""
    words: str = ""
    #: Have cron read the crontab anew, which is safe at any time: put the same texts in place with new times.
    mend: bool = False


def installed(watch: Watch, ticks: Iterable[int], now_s: float) -> Watch:
    """Return the watch once a crontab with just these ticks stands there. None: nothing is expected of cron."""
    waiting = {tick: watch.waiting.get(tick, now_s) for tick in ticks}
    called_s = watch.called_s if watch.waiting else now_s
    return replace(watch, waiting=waiting, heard=watch.heard & waiting.keys(), called_s=called_s)


def called(watch: Watch, number: int, now_s: float) -> Watch:
    """Return the watch after a call of cron with the number in its entry."""
    if number not in watch.waiting:
        return replace(watch, called_s=now_s)
    return replace(
        watch, called_s=now_s, waiting={**watch.waiting, number: now_s}, heard=watch.heard | frozenset((number,))
    )


def look(watch: Watch, now: Now, silent_s: float) -> tuple[Watch, Finding]:
    """Say how cron is doing. To be asked every few seconds; whoever takes up the finding keeps the new watch.

    Silent is a cron that has not called at all for `silent_s`, and one that has called, but not with the number of
    each present file. It is back once it has called with each of them.
    """
    if watch.looked is None or _was_disturbed(watch.looked, now):
        waiting = dict.fromkeys(watch.waiting, now.boot_s)
        watch = replace(watch, waiting=waiting, called_s=now.boot_s)
    watch = replace(watch, looked=now)
    if not watch.waiting:
        return watch, Finding()
    words = _complaint(watch, now.boot_s, silent_s)
    if words:
        mend = watch.mended_s is None or now.boot_s - watch.mended_s >= MEND_AGAIN_S or not watch.silent
        news = "" if watch.silent else "cron.silent"
        mended_s = now.boot_s if mend else watch.mended_s
        return (
            replace(watch, silent=True, heard=frozenset(), mended_s=mended_s),
            Finding(silent=True, news=news, words=words, mend=mend),
        )
    if watch.silent and watch.heard >= watch.waiting.keys():
        return replace(watch, silent=False, mended_s=None), Finding(news="cron.back", words="cron calls again")
    return watch, Finding(silent=watch.silent)


def _complaint(watch: Watch, now_s: float, silent_s: float) -> str:
    """Return what is wrong, or nothing."""
    quiet_s = now_s - watch.called_s
    if quiet_s > silent_s:
        return f"no call for {quiet_s:.0f} s: cron is dead, stopped, or ignores our crontab"
    unheard = [now_s - since_s for since_s in watch.waiting.values() if now_s - since_s > silent_s]
    if unheard:
        return f"cron calls, but has gone by an older text of our crontab for {max(unheard):.0f} s"
    return ""


def _was_disturbed(before: Now, now: Now) -> bool:
    passed_s = now.boot_s - before.boot_s
    return passed_s > STALL_S or abs(now.wall_s - before.wall_s - passed_s) > CLOCK_SET_S
