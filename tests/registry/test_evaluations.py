from decimal import Decimal

import pytest
from sqlalchemy.orm import Session

from service import errors
from service.registry import evaluations
from service.registry.access import OWNER
from service.registry.evaluations import Search
from service.schemas.evaluations import Result
from tests.factories import TENSORS, publish_model, publish_patch

ALL = Search()


def _result(**changed: object) -> Result:
    said = {"data_set": "Digits", "corruption": "fog", "scale": "0.5", "accuracy": 0.81, "n": 1000}
    return Result.model_validate({**said, **changed})


def test_the_same_result_again_is_no_news(session: Session) -> None:
    patch, base = publish_patch(session), publish_model(session)

    rows, new = evaluations.publish(session, patch, base, [_result(seed=1)], by=OWNER)
    again, anew = evaluations.publish(session, patch, base, [_result(seed=1)], by=OWNER)

    assert (new, anew) == (True, False)
    assert [row.id for row in again] == [row.id for row in rows]
    assert (rows[0].data_set, rows[0].scale) == ("digits", Decimal("0.5"))


@pytest.mark.parametrize("severity", [None, 3])
def test_another_result_of_one_condition_is_refused_by_name(
    session: Session, severity: int | None
) -> None:
    patch, base = publish_patch(session), publish_model(session)
    evaluations.publish(session, patch, base, [_result(severity=severity)], by=OWNER)

    with pytest.raises(errors.ResultsDiffer, match=r"fog on digits at scale 0\.5.* 0\.81 of 1000"):
        evaluations.publish(
            session, patch, base, [_result(severity=severity, accuracy=0.9)], by=OWNER
        )


def test_a_base_that_the_patch_does_not_fit_is_refused(session: Session) -> None:
    patch = publish_patch(session)
    wide = publish_model(
        session, "vision/wide", content="w", tensors=(("conv.weight", "F32", (8, 3)), TENSORS[1])
    )

    with pytest.raises(errors.DoesNotFit):
        evaluations.publish(session, patch, wide, [_result()], by=OWNER)


def test_results_are_found_by_what_they_were_measured_under(session: Session) -> None:
    patch, base = publish_patch(session), publish_model(session)
    other = publish_patch(session, "vision/noise")
    for version in (patch, other):
        both = [_result(), _result(corruption="clean")]
        evaluations.publish(session, version, base, both, by=OWNER)

    def found(wanted: Search) -> list[tuple[str, str]]:
        rows = evaluations.listed(session, wanted, before=None, limit=10)
        return [(row.patch_version.patch.name, row.corruption) for row in rows]

    assert len(found(ALL)) == 4
    assert found(Search(corruption="FOG")) == [("noise", "fog"), ("fog", "fog")]
    assert found(Search(base=base, data_set="digits", corruption="clean"))[1] == ("fog", "clean")
    assert found(Search(data_set="imagenet")) == []


@pytest.mark.parametrize(
    "bad",
    [
        {"accuracy": 81},
        {"accuracy": float("nan")},
        {"n": 0},
        {"scale": "11"},
        {"severity": -1},
        {"corruption": "<script>"},
        {"seed": -1},
    ],
)
def test_a_result_that_cannot_be_is_refused(bad: dict[str, object]) -> None:
    with pytest.raises((ValueError, errors.PatchbayError)):
        _result(**bad)
