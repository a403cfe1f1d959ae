"""What the client does alike with models and patches, both named lines of versions."""

from typing import Protocol, TypeVar

import httpx2

from service.client.problem import ServiceProblem
from service.schemas.wire import DescribeLine, EditLine

View_co = TypeVar("View_co", covariant=True)


class Lines(Protocol[View_co]):
    """The service's models, or its patches."""

    def get(self, name: str) -> View_co:
        """One of them."""

    def put(self, name: str, about: DescribeLine | None = None) -> View_co:
        """Make one, or say anew what it is."""

    def edit(self, name: str, change: EditLine) -> View_co:
        """Change what is said about one."""


def ensure(lines: Lines[View_co], name: str, about: EditLine) -> View_co:
    """Make the line if there is none; else change only what `about` says."""
    said = about.model_dump(exclude_unset=True)
    try:
        view = lines.get(name)
    except ServiceProblem as problem:
        if problem.status != httpx2.codes.NOT_FOUND:
            raise
        return lines.put(name, DescribeLine(**said))
    return lines.edit(name, about) if said else view
