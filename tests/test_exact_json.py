"""JSON text whose numbers keep their digits."""

from __future__ import annotations

import orjson
import pytest

from service import exact_json

EXACT = '{"z":123456789012345678901234567890,"a":1.10,"b":[1e400,-0,-0.0,1E5],"c":{"d":"é","e":null}}'


def test_numbers_and_order_come_back() -> None:
    assert exact_json.dumps(exact_json.loads(EXACT.encode())).decode() == EXACT


def test_laid_out_with_the_same_numbers() -> None:
    text = exact_json.indented('{"price":1.10,"of":[123456789012345678901234567890]}')
    assert text == '{\n  "price": 1.10,\n  "of": [\n    123456789012345678901234567890\n  ]\n}'


@pytest.mark.parametrize(
    "data", [b"NaN", b"[Infinity]", b"-Infinity", b'"\\ud800"', b'{"\\udfff":1}', b"\xff", b"{", b"1.", b"01"]
)
def test_what_is_no_json(data: bytes) -> None:
    with pytest.raises(ValueError):
        exact_json.loads(data)


def test_an_object_that_an_earlier_version_kept() -> None:
    assert exact_json.text_of({"a": 1}) == '{"a":1}' and exact_json.text_of(None) is None
    assert orjson.dumps({"metadata": exact_json.embedded({"a": 1})}) == b'{"metadata":{"a":1}}'
    assert orjson.dumps({"metadata": exact_json.embedded('{"a":1.10}')}) == b'{"metadata":{"a":1.10}}'
