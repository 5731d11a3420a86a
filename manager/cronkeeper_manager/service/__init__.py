"""The use cases: all that may be done to jobs, runs and tokens. The API's only way to write; it knows nothing of HTTP.

A write is one transaction in MySQL, which decides; ZooKeeper is told afterwards, within a short bound and only if it
is there, because the leader heals whatever it was not told. So a request is saved whole or not at all.
"""

from cronkeeper_manager.service.apply import Applied, Change
from cronkeeper_manager.service.artifacts import Artifacts, TooLargeError
from cronkeeper_manager.service.backfill import Backfill, Backfills, Wish
from cronkeeper_manager.service.calendar_rules import CalendarDraft
from cronkeeper_manager.service.calendars import CalendarChange, Calendars, Refreshed, StaleCalendarError
from cronkeeper_manager.service.jobs import Jobs, NameTakenError, StaleJobError
from cronkeeper_manager.service.namespaces import Namespaces, NamespaceView
from cronkeeper_manager.service.news import News
from cronkeeper_manager.service.outlook import By, FleetForecast, Forecasts
from cronkeeper_manager.service.preview import Forecast, forecast
from cronkeeper_manager.service.runs import Runs
from cronkeeper_manager.service.tokens import Tokens
from cronkeeper_manager.service.values import Caller, Draft, Policy, Upload
from cronkeeper_manager.service.why import Answer, Answers

__all__ = [
    "Answer",
    "Answers",
    "Applied",
    "Artifacts",
    "Backfill",
    "Backfills",
    "By",
    "CalendarChange",
    "CalendarDraft",
    "Calendars",
    "Caller",
    "Change",
    "Draft",
    "FleetForecast",
    "Forecast",
    "Forecasts",
    "Jobs",
    "NameTakenError",
    "NamespaceView",
    "Namespaces",
    "News",
    "Policy",
    "Refreshed",
    "Runs",
    "StaleCalendarError",
    "StaleJobError",
    "Tokens",
    "TooLargeError",
    "Upload",
    "Wish",
    "forecast",
]
