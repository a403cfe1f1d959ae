from sqlalchemy.orm import Session

from service.db.tables.models import ModelVersion
from service.registry import fits, retirement
from tests.factories import TENSORS, publish_model, publish_patch

OTHER_HEAD = (TENSORS[0], ("fc.weight", "F32", (100, 4)))
WIDER = (("conv.weight", "F32", (8, 3, 3, 3)), TENSORS[1])


def _patches(session: Session, base: ModelVersion) -> list[str]:
    found = fits.patches_for(session, base, before=None, limit=10)
    return [version.reference for version in found]


def test_whichever_comes_first_they_find_each_other(session: Session) -> None:
    earlier = publish_model(session, "vision/other", content="other", tensors=OTHER_HEAD)
    patch = publish_patch(session)
    later = publish_model(session, "vision/plain", content="plain")
    publish_model(session, "vision/wide", content="wide", tensors=WIDER)

    bases = fits.bases_for(session, patch, before=None, limit=10)

    assert [version.reference for version in bases] == ["vision/plain@1", "vision/other@1"]
    assert _patches(session, earlier) == _patches(session, later) == ["vision/fog@1"]


def test_versions_of_one_kind_share_a_row(session: Session) -> None:
    bases = [publish_model(session, content=str(number)) for number in range(3)]
    patches = [publish_patch(session, content=f"fog {number}") for number in range(3)]

    assert len({base.architecture_id for base in bases}) == 1
    assert len({patch.requirement_id for patch in patches}) == 1
    assert _patches(session, bases[0]) == ["vision/fog@3", "vision/fog@2", "vision/fog@1"]


def test_a_list_goes_on_where_it_ended(session: Session) -> None:
    base = publish_model(session)
    older, newer = (publish_patch(session, content=text) for text in ("one", "two"))

    rest = fits.patches_for(session, base, before=newer.id, limit=10)

    assert [version.id for version in rest] == [older.id]


def test_what_is_withdrawn_is_no_longer_offered(session: Session) -> None:
    base = publish_model(session)
    patch = publish_patch(session)

    retirement.withdraw(session, patch, "wrong data")

    assert _patches(session, base) == []
