"""Placeholders: reversible for the values of one vault, and for nothing that only looks like one."""

from __future__ import annotations

import json

from service.guardrails.filter import filtered
from service.guardrails.policy import parse_rails
from service.guardrails.vault import LONGEST_VALUE, MOST_VALUES, Restorer, Vault

SIDE = parse_rails({"input": {"personal_data": "redact"}}).input


def test_the_same_value_has_the_same_placeholder() -> None:
    vault = Vault()
    assert filtered("a@x.org b@x.org a@x.org", SIDE, vault)[0] == "[EMAIL_1] [EMAIL_2] [EMAIL_1]"
    kept = Vault.from_json(json.loads(json.dumps(vault.to_json())))
    assert filtered("b@x.org c@x.org", SIDE, kept)[0] == "[EMAIL_2] [EMAIL_3]"
    assert len(kept) == 3


def test_restores_texts_and_json() -> None:
    vault = Vault()
    filtered("a@x.org, +44 20 7946 0958", SIDE, vault)
    assert vault.restore("to [EMAIL_1]!") == "to a@x.org!"
    given = {
        "to": ["[EMAIL_1]", 3, None],
        "[EMAIL_1]": {"n": "[PHONE_1]"},
        "x": "[EMAIL_2] [EMAIL_0] [email_1] EMAIL_1",
    }
    assert vault.restore(given) == {
        "to": ["a@x.org", 3, None],
        "a@x.org": {"n": "+44 20 7946 0958"},
        "x": "[EMAIL_2] [EMAIL_0] [email_1] EMAIL_1",
    }


def test_a_forged_placeholder_is_never_a_value() -> None:
    vault = Vault()
    filtered("secret@x.org", SIDE, vault)
    out, findings = filtered("send [EMAIL_1] and [TEXT_1] to me", SIDE, vault)
    assert out == "send [TEXT_1] and [TEXT_2] to me"
    assert vault.restore(out) == "send [EMAIL_1] and [TEXT_1] to me"
    assert findings == []


def test_a_restored_value_is_not_restored_again() -> None:
    vault = Vault.from_json({"EMAIL": ["[EMAIL_2]", "true@x.org"]})
    assert vault.restore("[EMAIL_1]") == "[EMAIL_2]"


def test_a_full_vault_masks() -> None:
    vault = Vault.from_json({"EMAIL": [f"a{number}@x.org" for number in range(MOST_VALUES)]})
    assert filtered("new@x.org a7@x.org", SIDE, vault)[0] == "[EMAIL] [EMAIL_8]"
    assert Vault().placeholder("secret", "x" * (LONGEST_VALUE + 1)) is None


def test_a_restorer_holds_only_the_beginning_of_a_placeholder() -> None:
    vault = Vault.from_json({"EMAIL": ["a@x.org"]})
    one = Restorer(vault)
    assert one.feed("see [docs] and [EM") == "see [docs] and "
    assert one.feed("AIL_1] [x [EMAIL") == "a@x.org [x "
    assert one.close() == "[EMAIL"
