"""Forged tokens: any header and claims, as objects or as JSON, signed with the service's own key."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from service.auth.signing_keys import SigningKey
from service.types import now_ms

Json = dict[str, Any]
ORDER = 2**252 + 27742317777372353535851937790883648493  # of Ed25519's group


def encoded(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _segment(part: Json | str | bytes) -> str:
    text = json.dumps(part) if isinstance(part, dict) else part
    return encoded(text.encode() if isinstance(text, str) else text)


def forged(key: SigningKey, claims: Json | str | bytes, header: Json | str | bytes | None = None) -> str:
    """Sign any header and claims with the key; without a header, with its own."""
    assert isinstance(key.signing, Ed25519PrivateKey)
    text = f"{_segment(key.header if header is None else header)}.{_segment(claims)}"
    return f"{text}.{encoded(key.signing.sign(text.encode()))}"


def claims_of(token: str) -> Json:
    part = token.split(".")[1]
    found: Json = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def wrong_values(right: Any) -> list[Any]:
    """List values of another type than a claim's, or that only look like it."""
    odd: list[Any] = [None, True, [], {}, [right], {"a": right}, float("nan"), float("inf"), -1, 1.5, 10**30]
    if isinstance(right, str):
        return [*odd, 1, "", [right, "other"]]
    return [*odd, str(right), float(right), right + 0.5, 10**400, "soon"]


def wrong_claims(right: Json) -> Iterator[tuple[str, Json | str | bytes]]:
    """Yield what `right` must not be, with a name for each."""
    now = int(time.time())
    for name in ("iss", "aud", "sub", "fam", "jti", "iat", "exp", "type"):
        yield f"no {name}", {key: value for key, value in right.items() if key != name}
        for value in wrong_values(right[name]):
            yield f"{name}={value!r:.40}", {**right, name: value}
    for name, values in {
        "wsp": [*wrong_values("wsp"), "wsp_", "\ud800"],
        "fam": [
            "fam_",
            "fam_" + "0" * 33,
            "\ud800",
            f"{right['fam']}\n",
            right["fam"].upper(),
            "complete",
            right["sub"],
        ],
        "sub": ["usr_", "\ud800", f"{right['sub']}\0", right["fam"]],
        "jti": ["x y", "\ud800", "x" * 4_000],
    }.items():
        yield from ((f"{name}={value!r:.40}", {**right, name: value}) for value in values)
    for name in ("iss", "aud", "type"):
        for value in (right[name].upper(), f"{right[name]} ", f"{right[name]}\0", "other", f"x{right[name]}"):
            yield f"{name}={value!r}", {**right, name: value}
    other = "refresh" if right["type"] == "access" else "access"
    for changed in (
        {"type": other},
        {"exp": 1},
        {"exp": now - 3600, "iat": now - 3700},
        {"exp": now + 40 * 86_400},
        {"exp": 10**12},
        {"exp": now + 3700, "iat": now + 3600},
        {"iat": now - 40 * 86_400},
        {"iat": right["exp"], "exp": right["iat"]},
        *({"nbf": value} for value in (now + 3600, "soon", float("inf"), float("nan"), [now], {}, None)),
    ):
        yield f"{changed}", {**right, **changed}
    whole = json.dumps(right)
    for name in right:
        yield f"{name} twice", f'{{"{name}":{json.dumps(right[name])},{whole[1:]}'
    yield "a nested name twice", f'{whole[:-1]},"x":{{"a":1,"a":2}}}}'
    for text in ("", "{}", "[]", "null", "1", '"x"', f"[{whole}]", whole[:-1], f"{whole}x", "[" * 5_000):
        yield text[:20], text
    for data in (b"\xff\xfe", b"\xef\xbb\xbf" + whole.encode(), whole.encode("utf-16")):
        yield repr(data[:8]), data


def wrong_access(right: Json) -> Iterator[tuple[str, Json]]:
    """Yield claims that only an access token has, wrong."""
    for name, values in {
        "role": [*wrong_values("admin"), "root", "ADMIN", "deleted"],
        "name": [*wrong_values("ada"), "a b", "\ud800", "x" * 129],
        "lim": [
            *(value for value in wrong_values("1/minute") if value is not None),
            "soon",
            "9" * 5_000 + "/minute",
        ],
        "lim_until": [*wrong_values(now_ms()), 10**400, 2**53],
    }.items():
        for value in values:
            yield f"{name}={value!r:.40}", {**right, name: value}
    for name in ("role", "name"):
        yield f"no {name}", {key: value for key, value in right.items() if key != name}


def wrong_headers(right: Json) -> Iterator[tuple[str, Json | str | bytes]]:
    """Yield headers other than the one that the key writes."""
    own = {"kty": "OKP", "crv": "Ed25519", "x": encoded(b"x" * 32)}
    yield from ((f"no {name}", {key: right[key] for key in right if key != name}) for name in right)
    for name, values in {
        "alg": [
            "none",
            "None",
            "",
            "HS256",
            "HS512",
            "RS256",
            "ES256",
            "eddsa",
            "Ed25519",
            None,
            1,
            ["EdDSA"],
        ],
        "typ": ["at+jwt", "jwt", "", "JOSE", None, 1],
        "kid": [
            "",
            "other",
            "0" * 16,
            "../../../../dev/null",
            "' OR 1=1 --",
            "/etc/passwd",
            "a" * 5_000,
            "\0",
        ],
        "crit": [[], ["exp"], ["b64"], "exp", None],
        "b64": [True, False, None],
        "jku": ["https://example.com/jwks.json"],
        "jwk": [own],
        "x5u": ["https://example.com/x.pem"],
        "x5c": [["MIIB"]],
        "cty": ["JWT"],
        "zip": ["DEF"],
        "x": [1],
    }.items():
        yield from ((f"{name}={value!r:.40}", {**right, name: value}) for value in values)
    for kid in ("\ud800", None, 1, [right["kid"]], {"a": 1}, f"{right['kid']} ", right["kid"].upper() + "A"):
        yield f"kid={kid!r}", {**right, "kid": kid}
    yield "unencoded, as critical", {**right, "b64": False, "crit": ["b64"]}
    whole = json.dumps(right)
    for name in right:
        yield f"{name} twice", f'{{"{name}":"none",{whole[1:]}'
    for text in ("", "{}", "[]", "null", "1", '"x"', whole[:-1], f"{whole}x", "[" * 5_000):
        yield text[:20], text


def wrong_signatures(right: str) -> Iterator[tuple[str, str]]:
    """Yield a right token with a wrong signature, or in another form."""
    text, _, last = right.rpartition(".")
    head, claims = text.split(".")
    signature = base64.urlsafe_b64decode(last + "==")
    change: dict[str, Callable[[], bytes]] = {
        "none": lambda: b"",
        "zeros": lambda: bytes(64),
        "shorter": lambda: signature[:-1],
        "longer": lambda: signature + b"\0",
        "a bit": lambda: bytes([signature[0] ^ 1]) + signature[1:],
        "another s": lambda: (
            signature[:32] + (int.from_bytes(signature[32:], "little") + ORDER).to_bytes(32, "little")
        ),
    }
    yield from ((name, f"{text}.{encoded(made())}") for name, made in change.items())
    for other in (f"{right}==", f"{right}.", f"{right}.x", text, f".{right}", f"{head}==.{claims}.{last}"):
        yield other[-20:], other
    for other in (
        f"{head}.{claims}=.{last}",
        f"{head}.{claims}..{last}",
        f"{right}, {right}",
        "x",
        "a.b.c",
        "é",
        "....",
    ):
        yield other[-20:], other
