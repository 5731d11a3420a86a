"""Routes: each is declared with the role that it takes; one without cannot exist.

A view takes the call (who asks, with which parameters) and the parts of the path, and returns a response. Everything
around it, from the token to the Idempotency-Key, is done once, in `app`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeVar

from flask import Response
from pydantic import BaseModel

from cronkeeper.ports import RequestKey, Role
from cronkeeper_api.params import Param
from cronkeeper_api.services import Services
from cronkeeper_manager.service import Caller


class Access(StrEnum):
    """What a caller must be to use a route; each level includes the ones before it."""

    PUBLIC = "public"
    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def allows(self, role: Role) -> bool:
        """Say whether a token of this role is enough."""
        return _LEVELS[role] >= _LEVELS[self]


class Reach(StrEnum):
    """What a route reaches, and so which callers it takes."""

    #: Whatever belongs to all namespaces: takes a token for all of them. What a route is unless it says otherwise.
    FLEET = "fleet"
    #: What the caller's namespaces hold: all that it does goes through `Call.services`, which show nothing else.
    NAMESPACES = "namespaces"
    #: Nothing of any namespace.
    SHARED = "shared"


#: Of routes, and of the roles of the same names.
_LEVELS: dict[Access | Role, int] = {
    **{access: level for level, access in enumerate(Access)},
    **{Role(access): level for level, access in enumerate(Access) if access is not Access.PUBLIC},
}


@dataclass(frozen=True, slots=True)
class Call:
    """One request, once its token and its parameters have been found good.

    `services` are those of the caller's namespaces: what belongs to others is not there.
    """

    services: Services
    caller: Caller
    request_id: str
    query: Mapping[str, Any]
    #: The request's Idempotency-Key, where there is one: whatever saves something must note it there.
    key: RequestKey | None = None


View = Callable[..., Response]
#: Makes the answer to a request of the past from the ids of what it has saved.
Again = Callable[[Call, Sequence[str]], Response]
V = TypeVar("V", bound=View)


@dataclass(frozen=True, slots=True)
class Answer:
    """One kind of answer, for the OpenAPI document. `schema` is the name of a component; none is no JSON."""

    description: str
    schema: str = ""
    example: Any = None
    media: str = "application/json"
    headers: tuple[str, ...] = ()
    many: bool = False


@dataclass(frozen=True, slots=True)
class Route:
    """One method of one path. `problems` are the kinds of problems that it adds to those of every route."""

    method: str
    path: str
    access: Access
    reach: Reach
    view: View
    summary: str
    description: str
    tag: str
    params: tuple[Param, ...]
    body: type[BaseModel] | None
    body_required: bool
    form: bool
    example: Any
    answers: Mapping[int, Answer]
    problems: tuple[str, ...]
    idempotent: bool
    again: Again | None
    if_match: bool

    @property
    def endpoint(self) -> str:
        return f"{self.method} {self.path}"


@dataclass(slots=True)
class Router:
    """The routes of one module of views."""

    tag: str
    routes: list[Route] = field(default_factory=list)

    def route(
        self,
        method: str,
        path: str,
        *,
        access: Access,
        reach: Reach = Reach.FLEET,
        summary: str,
        answers: Mapping[int, Answer],
        description: str = "",
        params: tuple[Param, ...] = (),
        body: type[BaseModel] | None = None,
        body_required: bool = True,
        form: bool = False,
        example: Any = None,
        problems: tuple[str, ...] = (),
        idempotent: bool = False,
        again: Again | None = None,
        if_match: bool = False,
    ) -> Callable[[V], V]:
        """Declare the decorated view as a route.

        One that heeds the Idempotency-Key and notes in it what it saves needs `again`; without, it does the same twice.
        """

        def register(view: V) -> V:
            self.routes.append(
                Route(
                    method, path, access, reach, view, summary, description, self.tag, params, body, body_required,
                    form, example, answers, problems, idempotent, again, if_match,
                )
            )  # fmt: skip
            return view

        return register
