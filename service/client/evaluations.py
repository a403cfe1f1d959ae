"""Evaluation results: published with a patch version, searched over the catalogue."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from service.client import paths
from service.client.transport import Transport
from service.schemas.evaluations import MAX_RESULTS, EvaluationView, PublishEvaluations, Result


@dataclass(frozen=True, slots=True)
class Evaluations:
    """The service's evaluation results."""

    transport: Transport

    def publish(
        self, patch: str, number: int, base: str, results: Sequence[Result]
    ) -> list[EvaluationView]:
        """Publish what was measured of a patch version on a base."""
        url = paths.within(paths.patch(patch), "versions", number, "evaluations")
        found: list[EvaluationView] = []
        for start in range(0, len(results), MAX_RESULTS):
            part = list(results[start : start + MAX_RESULTS])
            body = PublishEvaluations(base=base, results=part)
            response = self.transport.send("POST", url, body=body)
            found += [EvaluationView.model_validate(row) for row in response.json()]
        return found

    def listed(
        self,
        *,
        patch: str | None = None,
        base: str | None = None,
        data_set: str | None = None,
        corruption: str | None = None,
    ) -> Iterator[EvaluationView]:
        """Every result that matches, newest first."""
        asked = {"patch": patch, "base": base, "data_set": data_set, "corruption": corruption}
        return self.transport.pages("/v1/evaluations", EvaluationView, asked)
