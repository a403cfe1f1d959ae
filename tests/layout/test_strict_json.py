import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.layout.strict_json import BadJson, json_object, shown

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.text(), VALUES))
def test_what_python_writes_is_read_back(value: dict[str, object]) -> None:
    assert json_object(json.dumps(value, allow_nan=False).encode()) == value


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b'{"a": 1, "a": 1}', "repeats the name 'a'"),
        (b'{"a": [{"b": 1, "b": 2}]}', "repeats the name 'b'"),
        (b'{"a": NaN}', "holds NaN"),
        (b'{"a": -Infinity}', "holds -Infinity"),
        (b'{"a": ' + b"9" * 5000 + b"}", "not JSON"),
        (b'{"a": ' + b"[" * 100_000, "nested too deeply"),
        (b'{"\xff": 1}', "not UTF-8"),
        (b"[]", "not a JSON object"),
        (b"", "not JSON"),
    ],
)
def test_what_two_readers_could_differ_about_is_refused(text: bytes, reason: str) -> None:
    with pytest.raises(BadJson, match=reason):
        json_object(text)


@given(VALUES)
def test_a_hostile_value_is_shown_in_short(value: object) -> None:
    assert len(shown(value)) <= 1200
