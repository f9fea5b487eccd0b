"""Secrets: keys and tokens of common vendors, private keys, URLs with passwords, and `password: …`."""

from __future__ import annotations

import re

from service.guardrails.match import WAIT, Answer, Match, Wait, Window
from service.text.stop_words import STOP_WORDS

_URL_SAFE = re.compile(r"[A-Za-z0-9_.=/+-]*")
_PEM_BODY = re.compile(r"[A-Za-z0-9+/=\s\\:,.-]*")
_PEM_END = re.compile(r"-----END [A-Z0-9 ]{1,40}-----")
_PEM = re.compile(r"-----BEGIN [A-Z0-9 ]{0,30}PRIVATE KEY(?: BLOCK)?-----")
# Beginning that makes a look worth it, and the whole key.
_VENDORS = {
    "AKIA|ASIA|ABIA|ACCA": r"[A-Z0-9]{16}(?![A-Za-z0-9])",
    "AIza": r"[0-9A-Za-z_-]{35}",
    r"ya29\.": r"[0-9A-Za-z_-]{20,}",
    "GOCSPX-": r"[A-Za-z0-9_-]{20,}",
    "gh[pousr]_": r"[A-Za-z0-9]{30,}",
    "github_pat_": r"[A-Za-z0-9_]{22,}",
    "gl(?:pat|dt|rt|cbt|ptt|ft|soat|agent|oas)-": r"[A-Za-z0-9_.-]{19,}[A-Za-z0-9_-]",
    "xox[abeoprs]-|xapp-": r"[A-Za-z0-9-]{10,}",
    "(?:sk|rk|pk)_(?:live|test)_|whsec_": r"[A-Za-z0-9+/=]{16,}",
    "sk-(?:ant|proj|svcacct|admin|or|None)-": r"[A-Za-z0-9_-]{20,}",
    "sk-(?=[A-Za-z]{0,40}[0-9])": r"[A-Za-z0-9]{32,}",
    "slp_": r"[A-Za-z0-9_-]{32,}",
    "npm_": r"[A-Za-z0-9]{30,}",
    "pypi-": r"[A-Za-z0-9_-]{40,}",
    "SK(?=[0-9a-f])": r"[0-9a-f]{32}(?![A-Za-z0-9])",
    r"SG\.": r"[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{16,}",
    "hf_|gsk_|xai-|r8_|lin_api_|nvapi-|ntn_|glsa_|sntrys_|dckr_pat_|PMAK-": r"[A-Za-z0-9_-]{24,}",
    "do[opr]_v1_|dapi|key-|shp(?:at|ca|pa|ss)_": r"[0-9a-fA-F]{32,}",
    r"hv[sbr]\.": r"[A-Za-z0-9_-]{24,}",
    "AGE-SECRET-KEY-1": r"[0-9A-Z]{50,}",
    "ATATT3x|ATCTT3x": r"[A-Za-z0-9_=-]{30,}",
    r"figd_|sbp_|pplx-|tskey-|fo1_|pscale_(?:tkn|pw)_|dp\.(?:pt|st|ct|sa)\.|sntryu_|lin_oauth_": r"[A-Za-z0-9_-]{24,}",
    "NR(?:AK|II|RA)-": r"[A-Za-z0-9]{27,}",
    "https://(?=[0-9a-f]{32}@)": r"[0-9a-f]{32}@[A-Za-z0-9.-]{3,80}/[0-9]{1,20}",  # of Sentry
    "sq0(?:atp|csp|idp)-": r"[A-Za-z0-9_-]{22,}",
    r"(?:https://)?hooks\.slack\.com/services/": r"[A-Z0-9]{8,}/[A-Z0-9]{8,}/[A-Za-z0-9]{16,}",
    "eyJ": r"[A-Za-z0-9_-]{12,}\.[A-Za-z0-9_-]{4,}(?:\.[A-Za-z0-9_-]*)?|(?:hb|0e|ra|4N|jd|"
    "lb)[A-Za-z0-9_.-]{60,}",
}
_KEYS = tuple((re.compile(begin), re.compile(rf"(?:{begin})(?:{rest})")) for begin, rest in _VENDORS.items())
_BEGINS = re.compile("|".join(_VENDORS))
_OTHER_KEYS = re.compile(
    r"[A-Za-z0-9_~.-]{3}8Q~[A-Za-z0-9_~.-]{31,34}"  # of Azure
    r"|(?:bot)?(?P<telegram>[0-9]{8,10}:AA[A-Za-z0-9_-]{33})(?![A-Za-z0-9_-])"
    r"|[0-9a-f]{32}-us[0-9]{1,2}(?![A-Za-z0-9])"  # of Mailchimp
)
_URL = re.compile(
    r"[A-Za-z][A-Za-z0-9+.-]{1,30}://[^\s:/@\"'<>]{0,64}:(?P<password>[^\s@/\"'<>]{1,100})@[^\s\"'<>`)\]]{1,100}"
)
_USER_BEFORE = re.compile(r"\s(?:-u|--user)[ =]?[\"']?\Z")
_USER = re.compile(r"[A-Za-z][\w.@-]{0,63}:(?P<password>[^\s:\"'<>]{6,100})(?=[\s\"']|\Z)")
_PASSWORD = (
    r"password|passwd|passphrase|passcode|passwort|kennwort|pwd|contraseña|wachtwoord|passe|hasło|"
    r"pin-?code|pw|mdp|parola d['’]ordine|(?<=[_-])pass"
)
_KEY = (  # of other languages than English
    r"(?:api|geheim|zugangs|zugriffs)[ -]?schlüssel|(?:api|geheime)[ -]?sleutel|"
    r"(?:clave|clé|chiave)s? (?:de |d['’]|di |secreta de )?api|clave secreta|clé secrète|chiave segreta"
)
_NAMED = re.compile(
    rf"[\w.-]{{0,40}}?(?:(?P<password>{_PASSWORD})|(?P<key>{_KEY})|"
    r"keys?|tokens?|secrets?|credentials?|bearer|basic|sig)"
    r"(?![a-zé])[\w-]{0,20}",
    re.IGNORECASE,
)
# Keys of maps, keyboards and sorts are none of these.
_OF_KEYS = re.compile(
    r"(?:api|access|secret|account|shared|auth|private|signing|encryption|master|license|client|service|"
    r"deploy)[ _-]?"
    r"(?:access[ _-]?)?keys?\Z",
    re.IGNORECASE,
)
_FOR = r"(?:for|to|of|für|zum?|zur|pour|du|de|para|del|di|per|voor|van)"
# Of what a password is: with a word such as `for`, or right after it, as in `mot de passe wifi`.
_WHOSE = (
    r"(?:wifi|wlan|router|root|admin|vpn|mail|login|web|temporal|actual|actuel|attuale|"
    r"nueva|nuova|provisional|provisoire|provvisoria|tijdelijk)"
)
_NOW = r"(?:\s\[[\w*]{0,24}\])?"  # as prompts show what is set, see `aws configure`
_OF = rf"(?:\s{_FOR}(?:\s[\w'’-]{{1,20}}){{1,4}}?(?=[\s:=])|\s{_WHOSE}(?![^\W_]))?"
# Words after a name of a secret that `_BETWEEN` may go on with.
_OPEN = re.compile(
    rf"[\"']?,?\s{{0,12}}[\"']?(?:value[\"']?\s?)?\Z|[\"']?\s{{0,3}}(?:{_FOR}(?:\s[\w'’-]{{0,20}}){{0,5}}|\[[\w*]{{0,24}}\]?|[^\W0-9]{{0,8}})\s{{0,3}}",
    re.IGNORECASE,
)
_IS = r"(?:(?:is|was|ist|war|lautet|lautete|est|es|era|è)(?![^\W_])|=>|:=|[:=])"
_BETWEEN = re.compile(
    rf"(?:{_OF}{_NOW}[\"']?\s{{0,3}}{_IS}\s{{0,3}}|[\"']?,?\s{{0,12}}[\"']?value[\"']?\s?[:=]\s?|[\"']?\s)"
    r"(?:(?:Bearer|Basic|now|set to|still|jetzt|nu|ahora|ora)\s{1,2})?[\"'`«„“]?",
    re.IGNORECASE,
)
_VALUE = re.compile(r"[^\s\"'`<>«»“”„,;]{1,200}")
# Words as a passphrase, up to the end of a line, a sentence or a quote.
_PHRASE = re.compile(r"[^\W0-9_]{2,12}(?:[ -][^\W0-9_]{2,12}){3,9}(?=[\"'.»”`]|\s*(?:\n|\Z))")
_PHRASE_OPEN = re.compile(r"[^\W0-9_ -]{1,12}(?:[ -][^\W0-9_]{0,12}){0,10}\s{0,3}")
_SENTENCE = STOP_WORDS | frozenset(
    ["must", "least", "enter", "required", "characters", "letters", "new", "old", "change", "reset", "forgot"]
)
_CODE = re.compile(r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+")  # such as `tokens.Token1`
_ANY_VALUE = re.compile(r"[^\s\"'`<>«»“”„,;]*")
# Letters of both cases or a sign that words have not, and a digit; or words and a number.
_GENERATED = re.compile(
    r"(?=.*[0-9])(?=.*[a-z])(?:(?=.*[A-Z])|(?=.*[!#$&*@^])).*|[A-Za-z]{3,12}(?:-[A-Za-z]{3,12}){1,4}-[0-9]{2,6}"
)
_PLACEHOLDER = re.compile(
    r"\$|\{|<|%|\*{2,}|x{4,}|\.{3}|(?:your|my|the|change|replace|insert|enter|example|redacted|required|"
    r"string|none|null|"
    r"true|false|undefined|os\.|process\.|env|config|settings|self\.|getenv|secrets?\.|vault|input|request)",
    re.IGNORECASE,
)
_GUESSED = frozenset({"password", "pass", "secret", "pwd", "passwd", "pw", "xxx"})
_SIGN_WORDS = (
    "passw passe passphrase passcode pwd kennwort contraseña wachtwoord hasło pin-code pincode key token secret "
    "credential bearer basic sig= pw: pw= mdp schlüssel sleutel clave clé chiave parola _pass -pass"
)


def _forms(word: str) -> tuple[str, ...]:
    return word, word.capitalize(), word.upper()


# Texts that make a look worth it, besides digits. Plain ones: those are searched for fast.
SIGNS = (
    *(
        "-----BEGIN",
        "AKIA",
        "ASIA",
        "ghp_",
        "gho_",
        "eyJ",
        "sk_live_",
        "sk_test_",
        "rk_live_",
        "glpat-",
        "npm_",
        "AIza",
        "hf_",
        "hvs.",
        "gsk_",
        "GOCSPX-",
    ),
    *(form for word in _SIGN_WORDS.split() for form in _forms(word)),
)
_HAS_NAME = re.compile("|".join(form for word in _SIGN_WORDS.split() for form in _forms(word)))
_SCHEME, _LONGEST_NAME = 35, 60  # characters


def match_secret(window: Window) -> Answer:
    """Match a key, a token, a private key or a password."""
    text, start = window.text, window.start
    if text.startswith("-----", start):
        found = _PEM.match(text, start, window.end)
        if found is not None:
            return Match("secret", start, found.end(), _PEM_BODY, _PEM_END)
        return None if window.final or window.end - start > 60 else WAIT
    key = _vendor_key(window)
    if key is not None:
        return key
    url = _URL.match(text, start, window.group) if text.find("://", start, start + _SCHEME) > 0 else None
    if url is not None and not _is_placeholder(url["password"]):
        return Match("secret", start, len(text[start : url.end()].rstrip(".,;:!?")) + start)
    return _user(window) or _named(window)


def _user(window: Window) -> Match | None:
    """Match the password in `curl -u name:password`."""
    text, start = window.text, window.start
    if _USER_BEFORE.search(text, max(0, start - 10), start) is None:
        return None
    found = _USER.match(text, start, window.end)
    if found is None or not _is_secret(found["password"], password=True, told=True):
        return None
    return Match("secret", found.start("password"), found.end())


def _vendor_key(window: Window) -> Match | None:
    text, start = window.text, window.start
    for begin, whole in _KEYS if _BEGINS.match(text, start) else ():
        if begin.match(text, start):
            found = whole.match(text, start, window.group)
            if found is not None and found[0].endswith(16 * "x"):  # `ghp_xxxx…` in examples
                return None
            return _long(window, found.end()) if found is not None else None
    other = _OTHER_KEYS.match(text, start, window.group)
    if other is None:
        return None
    return Match("secret", start if other["telegram"] is None else other.start("telegram"), other.end())


def _long(window: Window, end: int) -> Match:
    """Return a match that goes on beyond its window, if it reaches the end of that."""
    end = _URL_SAFE.match(window.text, end, window.group).end() if end == window.end else end  # type: ignore[union-attr]
    while window.text[end - 1] in ".=/+-" and end < window.end:
        end -= 1
    return Match("secret", window.start, end, _URL_SAFE if end == window.end else None)


def _named(window: Window) -> Answer:
    """Match the value after the name of a secret: `password: …`, `API_KEY=…`, `my password is …`."""
    text, start, end = window.text, window.start, window.end
    if _HAS_NAME.search(text, start, min(end, start + _LONGEST_NAME)) is None:  # a cheap look first
        return None
    name = _NAMED.match(text, start, end)
    if name is None or not _is_name(text, name):
        return None
    if not window.final and _OPEN.fullmatch(text, name.end(), end):
        return WAIT
    between = _BETWEEN.match(text, name.end(), end)
    at = between.end() if between is not None else name.end()
    value = _VALUE.match(text, at, end)
    if not window.final and (at == end or (value is not None and value.end() == end)):
        return WAIT
    if between is None or value is None or _BEGINS.match(text, at) or text.startswith("-----", at):
        return None
    if value.end() == end and window.is_cut:  # it may go on beyond the window
        return Match("secret", at, end, _ANY_VALUE)
    is_told = re.search(r"[:=]|\s(?:is|was|ist|war|lautete?|est|es|era|è)\s", between[0]) is not None
    if is_told and name["password"]:
        phrase = _phrase(window, at)
        if phrase is not None:
            return phrase
    written = value[0].rstrip(".,;:?)]}")
    if not _is_secret(
        written, password=name["password"] is not None, told=is_told or name[0].lower() in ("bearer", "basic")
    ):
        return None
    return Match("secret", at, at + len(written))


def _phrase(window: Window, at: int) -> Match | Wait | None:
    """Match a passphrase of four words or more that are no sentence."""
    text, end = window.text, window.end
    if not window.final and _PHRASE_OPEN.fullmatch(text, at, end):
        return WAIT
    found = _PHRASE.match(text, at, end)
    if found is None or not _SENTENCE.isdisjoint(re.split("[ -]", found[0].lower())):
        return None
    return Match("secret", at, found.end())


def _is_name(text: str, name: re.Match[str]) -> bool:
    """Return whether a name is one of a secret, with the words before it."""
    before, last = text[max(0, name.start() - 20) : name.start()], name[0].lower()
    if last == "passe":
        return before.lower().endswith("mot de ")
    return re.search("keys?(?![a-z])", last) is None or _OF_KEYS.search(before + name[0]) is not None


def _is_secret(value: str, *, password: bool, told: bool) -> bool:
    if _is_placeholder(value) or "(" in value or value.startswith(("http:", "https:", "/", "@", "#")):
        return False
    kinds = sum(re.search(one, value) is not None for one in ("[0-9]", "[a-z]", "[A-Z]", "[^A-Za-z0-9]"))
    digits = re.search("[0-9]", value) is not None
    if "[" in value or _CODE.fullmatch(value):
        return False
    if password and told:
        return len(value) >= 5 and (digits or kinds >= 3)
    if password:  # right after its name
        return len(value) >= 8 and _GENERATED.fullmatch(value) is not None
    return told and len(value) >= 16 and digits and kinds >= 2


def _is_placeholder(value: str) -> bool:
    return value.lower() in _GUESSED or "…" in value or _PLACEHOLDER.match(value) is not None
