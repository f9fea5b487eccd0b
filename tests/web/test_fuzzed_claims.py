"""Claims of any JSON type and text, signed with the right key: each answer is one of the contract, and none is 500."""

from __future__ import annotations

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from service.auth.users import User
from tests.auth.forging import claims_of, forged
from tests.auth.house import Replica

TEXT = st.text(max_size=40) | st.sampled_from(["", "\0", "\ud800", "x" * 5_000])
LIKE_IDS = st.builds("{}_{}".format, st.sampled_from(["usr", "fam", "wsp"]), TEXT | st.just("0" * 26))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | TEXT | LIKE_IDS | st.just(10**400)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=5,
)
NAMES = ("aud", "sub", "jti", "fam", "iat", "exp", "type", "iss", "nbf", "wsp", "role", "name")
CLAIMS = st.dictionaries(
    st.sampled_from((*NAMES, "lim", "lim_until", "lim_after")), VALUES, min_size=1, max_size=2
)


@settings(
    max_examples=400,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=list(HealthCheck),
)
@given(changed=CLAIMS)
def test_no_claims_break_the_service(here: Replica, ada: User, changed: dict[str, Any]) -> None:
    pair = here.tokens.begin(ada)
    for token, method, path in (
        (pair.access_token, "GET", "/v1/auth/me"),
        (pair.refresh_token, "POST", "/v1/auth/refresh"),
    ):
        sent = forged(here.signing_keys.current(), {**claims_of(token), **changed})
        answer = here.client(sent).open(path, method=method)
        assert answer.status_code in (200, 401, 429), (changed, answer.text)
