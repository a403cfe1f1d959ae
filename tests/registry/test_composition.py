"""Balanced recipes and interference, from what a worker has found."""

from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy.orm import Session

from service import errors
from service.registry import comparisons, composition, operations, recipes
from service.registry.access import OWNER
from service.registry.recipes import Resolved
from service.schemas.similarity import CompositionView
from tests.factories import publish_model, publish_patch

SCALES = st.floats(-3, 3).filter(lambda scale: abs(scale) > 0.01)
GRAM = [[4.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 9.0]]


@pytest.fixture
def _patches(session: Session) -> None:
    publish_model(session)
    for name in "abc":
        publish_patch(session, f"vision/{name}")


def resolved(session: Session, text: str) -> Resolved:
    return recipes.resolve(session, f"vision/net@main+{text}", require="same_architecture")


def known(session: Session, recipe: Resolved, gram: list[list[float]] | None = None) -> list[int]:
    """Record what a worker would find; answers which of a, b, c each patch of the recipe is."""
    at = ["abc".index(part.version.patch.name) for part in recipe.parts]
    whole = np.array(gram or GRAM)[np.ix_(at, at)]
    sizes = np.sqrt(np.diag(whole))
    cosines = whole / np.outer(sizes, sizes)
    values = np.linalg.eigvalsh(cosines)
    solvable = values[0] > 0
    found: dict[str, Any] = {
        "gram": whole.tolist(),
        "cosines": cosines.tolist(),
        "shared": np.ones_like(whole).tolist(),
        "conflict": np.full_like(whole, 0.25).tolist(),
        "balance": {
            "condition": float(values[-1] / values[0]) if solvable else None,
            "solve": np.linalg.solve(whole, np.diag(np.diag(whole))).tolist() if solvable else None,
        },
        "layers": [
            {
                "tensor": "conv.weight",
                "shape": [4, 3, 3, 3],
                "patches": list(range(len(at))),
                "gram": whole.tolist(),
                "conflict": np.full_like(whole, 0.25).tolist(),
            }
        ],
    }
    versions = [part.version for part in recipe.parts]
    operation = comparisons_operation(session, versions)
    comparisons.record(session, operation, found)
    return at


def comparisons_operation(session: Session, versions: Any) -> Any:
    operations.worker_seen(session, "w", ["cpu"], "cpu")
    return comparisons.request(session, versions, by=OWNER, limits=operations.Limits())


def composed(
    session: Session, recipe: Resolved, *, balanced: bool = True
) -> tuple[Resolved, CompositionView]:
    found = composition.compose(
        session, recipe, require="same_architecture", balanced=balanced, interference=True
    )
    assert found is not None
    return found


@pytest.mark.usefixtures("_patches")
def test_a_balanced_recipe_is_a_plain_one_with_the_scales_solved_for(session: Session) -> None:
    recipe = resolved(session, "a=0.5+b=1+c=-2")
    at = known(session, recipe)
    wanted = np.array([[0.5, 1.0, -2.0][each] for each in at])
    gram = np.array(GRAM)[np.ix_(at, at)]

    balanced, view = composed(session, recipe)

    scales = np.linalg.solve(gram, np.diag(gram) * wanted)
    assert view.balance is not None
    assert view.balance.wanted == [part.scale for part in recipe.parts]
    assert [float(scale) for scale in view.balance.solved] == pytest.approx(scales, abs=5e-5)
    assert view.balance.reached == pytest.approx([1.0] * 3, abs=1e-3)
    assert [part.scale for part in balanced.parts if part.scale] == [
        scale for scale in view.balance.solved if scale
    ]
    assert view.balance.recipe == recipes.pinned(balanced)
    again = recipes.resolve(session, view.balance.recipe, require="same_architecture")
    assert again.canonical == balanced.canonical


@pytest.mark.usefixtures("_patches")
def test_scales_that_are_solved_have_four_places(session: Session) -> None:
    recipe = resolved(session, "a=0.5+b=0.7")
    known(session, recipe)

    balanced, _ = composed(session, recipe)

    assert all(part.scale == part.scale.quantize(Decimal("0.0001")) for part in balanced.parts)


@pytest.mark.usefixtures("_patches")
def test_patches_too_much_alike_are_refused_and_named(session: Session) -> None:
    recipe = resolved(session, "a=1+b=1+c=1")
    known(session, recipe, [[4.0, 1.99, 0.0], [1.99, 1.0, 0.0], [0.0, 0.0, 9.0]])

    with pytest.raises(errors.CannotBalance, match="condition number") as refused:
        composed(session, recipe)

    assert {refused.value.first, refused.value.second} == {"vision/a@1", "vision/b@1"}


@pytest.mark.usefixtures("_patches")
def test_signatures_that_no_scales_can_balance_are_refused(session: Session) -> None:
    recipe = resolved(session, "a=1+b=1")
    known(session, recipe, [[1.0, 1.1, 0.0], [1.1, 1.0, 0.0], [0.0, 0.0, 1.0]])

    with pytest.raises(errors.CannotBalance, match="without bound"):
        composed(session, recipe)


@pytest.mark.usefixtures("_patches")
def test_a_scale_that_would_have_to_more_than_double_is_refused(session: Session) -> None:
    recipe = resolved(session, "a=1+b=-0.1")
    known(session, recipe)

    told = "in place of -0.1, over 2 times as much"
    with pytest.raises(errors.CannotBalance, match=told) as refused:
        composed(session, recipe)

    assert {refused.value.first, refused.value.second} == {"vision/a@1", "vision/b@1"}


@given(st.lists(st.floats(-1, 1), min_size=9, max_size=9), st.lists(SCALES, min_size=3, max_size=3))
def test_balanced_scales_are_the_best_of_those_between_nothing_and_what_was_asked_for(
    values: list[float], wanted: list[float]
) -> None:
    rows = np.array(values).reshape(3, 3)
    gram = rows @ rows.T + np.eye(3)

    scales = np.array(composition._within(gram.tolist(), wanted))

    slope = (gram @ scales - np.diag(gram) * wanted) * np.sign(wanted)
    share = scales / wanted
    assert np.all((share >= 0) & (share <= 1))
    assert np.all(slope[share < 1] > -1e-4), "more of it would be better"
    assert np.all(slope[share > 0] < 1e-4), "less of it would be better"


@pytest.mark.usefixtures("_patches")
def test_signatures_that_point_away_from_each_other_are_not_made_larger(session: Session) -> None:
    recipe = resolved(session, "a=1+b=0.6")
    known(session, recipe, [[1.0, -0.4, 0.0], [-0.4, 1.0, 0.0], [0.0, 0.0, 1.0]])

    _, view = composed(session, recipe)

    assert view.balance is not None
    assert view.balance.solved == view.balance.wanted
    by_name = dict(zip(view.patches, view.balance.reached, strict=True))
    assert by_name == pytest.approx({"vision/a@1": 0.76, "vision/b@1": 1 / 3})


@pytest.mark.usefixtures("_patches")
def test_a_patch_that_the_others_hold_wholly_is_left_out_and_told_of(session: Session) -> None:
    recipe = resolved(session, "a=1+b=0.75")
    known(session, recipe, [[1.0, 0.9, 0.0], [0.9, 1.0, 0.0], [0.0, 0.0, 1.0]])

    balanced, view = composed(session, recipe)

    said = composition.warnings(balanced, view)
    assert [text for text in said if "vision/b@1 is left out" in text]
    assert recipes.PLAIN_SUM not in said
    assert recipes.PLAIN_SUM in composition.warnings(recipe, None)


@pytest.mark.usefixtures("_patches")
def test_interference_counts_the_signs_of_the_scales(session: Session) -> None:
    plain, against = resolved(session, "a=1+b=1"), resolved(session, "a=1+b=-1")
    known(session, plain)

    _, alike = composed(session, plain, balanced=False)
    _, opposed = composed(session, against, balanced=False)

    assert alike.interference is not None
    assert opposed.interference is not None
    (one,), (other,) = alike.interference, opposed.interference
    assert (one.cosine, one.conflict) == (0.5, 0.25)
    assert (other.cosine, other.conflict) == (-0.5, 0.75)
    assert (one.layers[0].cosine, other.layers[0].conflict) == (0.5, 0.75)
    assert alike.balance is None


@pytest.mark.usefixtures("_patches")
def test_what_is_not_known_yet_is_asked_for_once(session: Session) -> None:
    recipe = resolved(session, "a=1+b=1")

    unknown = composition.compose(
        session, recipe, require="same_architecture", balanced=True, interference=False
    )
    versions = [part.version for part in recipe.parts]
    asked = [comparisons_operation(session, order).id for order in (versions, versions[::-1])]

    assert unknown is None
    assert asked[0] == asked[1]


@pytest.mark.usefixtures("_patches")
def test_nothing_has_to_be_known_of_the_base_alone(session: Session) -> None:
    base = recipes.resolve(session, "vision/net", require="same_architecture")

    found, view = composed(session, base)

    assert (found, view.patches) == (base, [])
