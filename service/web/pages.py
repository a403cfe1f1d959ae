"""The catalogue's pages, put together: routes, static files, and how a browser sees a problem."""

from collections.abc import Mapping
from typing import Any

from fastapi import FastAPI, Request, Response

from service.web import (
    assets,
    builds,
    channels,
    comparing,
    drawing,
    home,
    models,
    operations,
    patches,
    problem,
    signin,
)


def install(app: FastAPI) -> None:
    """Add the pages and their static files to `app`."""
    files = assets.Assets()
    app.state.assets = files
    app.state.templates = drawing.environment(files)
    for noun in (assets, signin, home, models, comparing, patches, channels, operations, builds):
        app.include_router(noun.router)


def draw_problem(request: Request, found: Mapping[str, Any]) -> Response | None:
    """Draw a problem document for a browser; None where JSON is better."""
    return problem.drawn(request, found)
