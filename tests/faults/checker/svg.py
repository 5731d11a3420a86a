"""A history as a picture: a row for each task, its fires as ticks, its runs as bars, faults as bands across."""

from __future__ import annotations

from html import escape

from tests.faults.checker.facts import Facts
from tests.faults.checker.history import History
from tests.faults.checker.judge import Verdict, judge

_LEFT, _ROW, _HEAD = 160, 16, 40
_WIDTH = 1600
_COLOURS = {
    Verdict.ON_TIME: "#cfe8cf",
    Verdict.LATE: "#ffd27f",
    Verdict.PENDING: "#dddddd",
    Verdict.SKIPPED: "#b9c6e8",
    Verdict.NOT_NEEDED: "#eeeeee",
}
_BAD, _RUN, _BAND = "#e0453a", "#2f6f4f", "#c0392b"


def draw(history: History) -> str:
    """Return an SVG document. Point at a mark to read what it is."""
    facts = Facts(history)
    tasks = sorted({key[:2] for key in (*facts.targets, *facts.runs)})
    start_s, end_s = history.plan.started_s, max(history.plan.read_s, history.plan.started_s + 1)
    height = _HEAD + _ROW * (len(tasks) + 1)

    def x(at_s: float) -> float:
        return round(_LEFT + (min(max(at_s, start_s), end_s) - start_s) / (end_s - start_s) * (_WIDTH - _LEFT), 1)

    marks = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" font-size="11">']
    for fault in history.faults:
        left, right = x(fault.started_s), x(fault.healed_s if fault.healed_s is not None else end_s)
        label = escape(f"{fault.kind} {' '.join(fault.targets)}")
        marks.append(_box(left, 0, right - left, height, _BAND, label, opacity=0.15))
        marks.append(f'<text x="{left}" y="12">{label}</text>')
    for index, task in enumerate(tasks):
        top = _HEAD + index * _ROW
        marks.append(f'<text x="2" y="{top + 11}">{escape(f"{task[0]}/{task[1]}")}</text>')
        for key, target in facts.targets.items():
            if key[:2] == task:
                verdict = judge(facts, target).verdict
                width = x(target.due_s + target.jitter_s + facts.bounds.on_time_s) - x(target.due_s)
                marks.append(_box(x(target.due_s), top, width, 13, _COLOURS.get(verdict, _BAD), f"{key[2]} {verdict}"))
        for run in facts.by_task.get(task, ()):
            width = max(1.5, x(run.end_s or run.start_s) - x(run.start_s))
            marks.append(_box(x(run.start_s), top + 4, width, 5, _RUN, escape(f"{run.start.run} {run.start.node}")))
    return "\n".join([*marks, "</svg>\n"])


def _box(x: float, y: float, width: float, height: float, colour: str, title: str, *, opacity: float = 1) -> str:
    place = f'x="{x}" y="{y}" width="{round(width, 1)}" height="{height}"'
    return f'<rect {place} fill="{colour}" fill-opacity="{opacity}"><title>{title}</title></rect>'
