from collections.abc import Mapping

import pytest
from sqlalchemy.orm import Session

from service import errors
from service.db.tables.models import Model, ModelVersion
from service.db.tables.operations import Operation
from service.layout.header import Header, compose
from service.names import Digest, model_name
from service.registry import blobs, conversions, lines, models, operations
from service.registry.access import OWNER
from service.registry.conversions import Weights
from service.registry.models import Order
from tests.factories import digest

NET = model_name("vision/net")
FILES = {"net.pth": digest("checkpoint"), "README.md": digest("readme")}
HEADER = compose([("a.weight", "F32", (2, 2)), ("b.weight", "F32", (2,))])
OTHER = compose([("b.weight", "F32", (2,)), ("c.weight", "F32", (2,))])


@pytest.fixture(autouse=True)
def _known(session: Session) -> None:
    lines.describe(session, Model, NET, card="", license=None, labels=[], by=OWNER)
    for each in (*FILES.values(), digest("optimizer"), digest("own")):
        blobs.record(session, each, HEADER.file_size)


def ask(
    session: Session, files: Mapping[str, Digest], order: Order | None = None
) -> ModelVersion | Operation:
    limits = operations.Limits()
    return conversions.request(session, NET, files, order, by=OWNER, limits=limits)


def asked(
    session: Session, files: Mapping[str, Digest] = FILES, order: Order | None = None
) -> Operation:
    made = ask(session, files, order)
    assert isinstance(made, Operation)
    return made


def done(session: Session, operation: Operation, content: str = "converted") -> ModelVersion:
    weights = Weights(
        given="net.pth",
        path="net.safetensors",
        digest=digest(content),
        header=HEADER,
        order=["b.weight", "a.weight"],
        tied={"c.weight": "b.weight"},
        left_out=["epoch"],
        guards=["network"],
    )
    result = conversions.record(session, operation, [weights], [])
    return models.version(session, NET, result["version"])


def test_a_version_holds_what_the_checkpoint_became_and_tells_of_it(session: Session) -> None:
    version = done(session, asked(session, {**FILES, "optimizer.pt": digest("optimizer")}))

    assert {file.path: file.digest for file in version.files} == {
        "README.md": digest("readme"),
        "net.safetensors": digest("converted"),
    }
    assert version.forward_order == [["net.safetensors", n] for n in ("b.weight", "a.weight")]
    assert version.conversion == {
        "converted": {"net.safetensors": {"path": "net.pth", "digest": digest("checkpoint")}},
        "tied": [{"path": "net.safetensors", "name": "c.weight", "same_as": "b.weight"}],
        "left_out": [
            {"path": "optimizer.pt", "name": None},
            {"path": "net.pth", "name": "epoch"},
        ],
    }


def test_a_checkpoint_that_was_converted_is_not_converted_again(session: Session) -> None:
    version = done(session, asked(session))

    assert ask(session, FILES) is version
    assert isinstance(ask(session, FILES, ["a.weight"]), Operation)


def test_two_requests_for_one_checkpoint_give_one_version(session: Session) -> None:
    first, second = asked(session), asked(session)

    versions = {done(session, operation).number for operation in (first, second)}

    assert versions == {1}


def test_an_order_that_was_given_goes_before_the_recorded_one(session: Session) -> None:
    version = done(session, asked(session, order=["a.weight"]))

    assert version.forward_order == [["net.safetensors", "a.weight"]]


def test_beside_weights_of_unknown_order_none_is_recorded(session: Session) -> None:
    operation = asked(session, {**FILES, "own.safetensors": digest("own")})
    models.keep_headers(session, {digest("own"): HEADER})

    assert done(session, operation).forward_order is None


# ── forward order ────────────────────────────────────────────────────────────────────────────

HEADERS: Mapping[str, Header] = {"x.safetensors": HEADER, "y.safetensors": OTHER}


def test_an_order_names_tensors_by_name_or_by_file_and_name() -> None:
    order: Order = ["c.weight", ("y.safetensors", "b.weight"), "a.weight"]

    assert models.addressed(order, HEADERS) == [
        ["y.safetensors", "c.weight"],
        ["y.safetensors", "b.weight"],
        ["x.safetensors", "a.weight"],
    ]


@pytest.mark.parametrize(
    ("order", "told"),
    [
        (["b.weight"], "in 2 files"),
        (["d.weight"], "not there"),
        ([("x.safetensors", "c.weight")], "in 'x.safetensors'"),
        (["a.weight", ("x.safetensors", "a.weight")], "twice"),
    ],
)
def test_an_order_that_is_not_clear_is_refused(order: Order, told: str) -> None:
    with pytest.raises(errors.BadForwardOrder, match=told):
        models.addressed(order, HEADERS)


def test_the_first_model_that_knows_its_order_gives_it(session: Session) -> None:
    known = done(session, asked(session))
    unknown = ModelVersion(forward_order=None)

    assert models.recorded_order([unknown, None, known]) == ("b.weight", "a.weight")
    assert models.recorded_order([unknown]) is None
