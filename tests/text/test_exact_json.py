"""JSON text whose numbers keep their digits."""

from __future__ import annotations

import orjson
import pytest

from service.text import exact_json

EXACT = '{"z":123456789012345678901234567890,"a":1.10,"b":[1e400,-0,-0.0,1E5],"c":{"d":"é","e":null}}'


def test_numbers_and_order_come_back() -> None:
    assert exact_json.dumps(exact_json.loads(EXACT.encode())).decode() == EXACT


def test_laid_out_with_the_same_numbers() -> None:
    text = exact_json.indented('{"price":1.10,"of":[123456789012345678901234567890]}')
    assert text == '{\n  "price": 1.10,\n  "of": [\n    123456789012345678901234567890\n  ]\n}'


@pytest.mark.parametrize(
    "data", [b"NaN", b"[Infinity]", b"-Infinity", b'"\\ud800"', b'{"\\udfff":1}', b"\xff", b"{", b"1.", b"01"]
)
def test_invalid_json_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        exact_json.loads(data)


@pytest.mark.parametrize("text", [EXACT, '{"a":1.10}', '{"a":1e400}', '{"a":-0}', '{"a": 1}'])
def test_text_that_parsing_would_change_is_kept_as_text(text: str) -> None:
    assert exact_json.to_stored(text) == exact_json.to_text(exact_json.to_stored(text)) == text


def test_any_other_is_kept_as_an_object() -> None:
    assert (
        exact_json.to_stored('{"b":1.5,"a":[1,"é"]}') == {"b": 1.5, "a": [1, "é"]}
        and exact_json.to_stored(None) is None
    )
    assert exact_json.to_text(exact_json.to_stored('{"b":1.5,"a":[1,"é"]}')) == '{"b":1.5,"a":[1,"é"]}'


def test_stored_json_is_embedded_verbatim() -> None:
    assert exact_json.to_text({"a": 1}) == '{"a":1}' and exact_json.to_text(None) is None
    assert orjson.dumps({"metadata": exact_json.embedded({"a": 1})}) == b'{"metadata":{"a":1}}'
    assert orjson.dumps({"metadata": exact_json.embedded('{"a":1.10}')}) == b'{"metadata":{"a":1.10}}'
