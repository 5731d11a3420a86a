"""/forecast: what the fleet is going to do."""

from __future__ import annotations

from flask import Response

from cronkeeper_api.params import Param, Type
from cronkeeper_api.render import fleet_forecast_json, json_response
from cronkeeper_api.routing import Access, Answer, Call, Reach, Router
from cronkeeper_api.views import examples
from cronkeeper_manager.service import By

router = Router("fleet")


@router.route(
    "GET",
    "/forecast",
    access=Access.VIEWER,
    reach=Reach.NAMESPACES,
    summary="See what the fleet is going to do",
    description="Expected fires and load of the active jobs, crowded minutes and quiet ones. Each fire is taken to "
    "last as long as its job's last run did. By minute for two days at most, by hour for seven.",
    params=(
        Param("from", Type.INSTANT, "From this instant (RFC 3339); now unless given."),
        Param("to", Type.INSTANT, "Until this instant; a day later unless given."),
        Param("by", Type.CHOICE, "What to sum up over.", By.HOUR.value, choices=tuple(by.value for by in By)),
        Param("worker", Type.TEXT, "Only the tasks that this worker has at present.", high=63),
        Param("namespace", Type.TEXT, "Only jobs of this namespace.", high=63),
    ),
    answers={200: Answer("The forecast.", "FleetForecast", examples.FLEET_FORECAST)},
)
def forecast(call: Call) -> Response:
    query = call.query
    found = call.services.forecasts.expect(
        from_ms=query["from"],
        to_ms=query["to"],
        by=By(query["by"]),
        worker=query["worker"],
        namespace=query["namespace"],
    )
    return json_response(fleet_forecast_json(found))
