"""Values for `mixed_texts.txt`: made up, with right check digits, the same in every run."""

import random
import re
import string
from collections.abc import Callable
from itertools import cycle

from stdnum import luhn
from stdnum.de import idnr
from stdnum.fr import nir
from stdnum.iso7064 import mod_11_10
from stdnum.it import codicefiscale
from stdnum.pl import pesel

from tests.guardrails.data.mixed_forms import AT_MAILS, BIRTHS, MAILS, PHONES, V4, V4_SMALL, V6

RNG = random.Random(24)
UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALNUM = UPPER + LOWER + DIGITS
HEX = "0123456789abcdef"

# Letters that an account begins with, and the digits after those.
ACCOUNTS = {"GB": ("NWBK601613", 8), "NL": ("RABO", 10), "IT": ("X05428", 17), "LU": ("001", 13)}
DIGITS_OF = {"DE": 18, "PL": 24, "FR": 23, "ES": 20, "AT": 16, "BE": 12, "CH": 17, "SE": 20, "PT": 21}


def some(alphabet: str, count: int) -> str:
    return "".join(RNG.choice(alphabet) for _ in range(count))


def fours(digits: str, by: str = " ", of: int = 4) -> str:
    return by.join(digits[at : at + of] for at in range(0, len(digits), of))


def card(prefix: str, length: int) -> str:
    body = prefix + some(DIGITS, length - len(prefix) - 1)
    return body + luhn.calc_check_digit(body)


def amex() -> str:
    number = card("37", 15)
    return f"{number[:4]} {number[4:10]} {number[10:]}"


def right_iban(country: str) -> str:
    """Return a number with the check digits of ISO 13616."""
    head, digits = ACCOUNTS[country] if country in ACCOUNTS else ("", DIGITS_OF[country])
    account = head + some(DIGITS, digits)
    number = "".join(str(int(letter, 36)) for letter in account + country + "00")
    return f"{country}{98 - int(number) % 97:02d}{account}"


def ssn() -> str:
    return f"{RNG.randint(101, 665)}-{RNG.randint(11, 98)}-{RNG.randint(1001, 9989)}"


def nino() -> str:
    number = RNG.choice(("AB", "JC", "WK", "SR")) + some(DIGITS, 6) + RNG.choice("ABCD")
    return (
        number
        if RNG.random() < 0.5
        else f"{number[:2]} {number[2:4]} {number[4:6]} {number[6:8]} {number[8]}"
    )


def german() -> str:
    while True:
        body = list(DIGITS)
        RNG.shuffle(body)
        body[RNG.randint(1, 9)] = body[0]
        number = "".join(body) + mod_11_10.calc_check_digit("".join(body))
        if idnr.is_valid(number):
            return number if RNG.random() < 0.4 else f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"


def french(spaced: bool = True) -> str:
    born = f"{RNG.choice('12')}{RNG.randint(40, 99)}{RNG.randint(1, 12):02d}"
    body = f"{born}{RNG.choice(('69', '75', '13', '33'))}{RNG.randint(100, 380)}{RNG.randint(100, 900)}"
    key = nir.calc_check_digits(body)
    return (
        f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:13]} {key}"
        if spaced
        else body + key
    )


def dni() -> str:
    number = RNG.randint(10_000_000, 79_999_999)
    return f"{number}{RNG.choice(('', '-'))}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def nie() -> str:
    number = RNG.randint(1_000_000, 9_999_999)
    head = RNG.choice("XYZ")
    return f"{head}{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[int(str('XYZ'.index(head)) + str(number)) % 23]}"


def italian() -> str:
    name = f"{RNG.choice(('RSSMRA', 'CNTGLI', 'FRRLDA', 'BNCLCU'))}{RNG.randint(40, 99)}"
    body = f"{name}{RNG.choice('ABCDEHLMPRST')}{RNG.randint(1, 28):02d}{RNG.choice(('H501', 'F205', 'L219'))}"
    return body + codicefiscale.calc_check_digit(body)


def dutch() -> str:
    while True:
        digits = some("123456789", 1) + some(DIGITS, 7)
        rest = sum(int(digit) * weight for digit, weight in zip(digits, range(9, 1, -1), strict=True)) % 11
        if rest < 10:
            return f"{digits}{rest}"


def polish() -> str:
    body = f"{RNG.randint(50, 99)}{RNG.randint(1, 12):02d}{RNG.randint(1, 28):02d}{some(DIGITS, 4)}"
    return body + pesel.calc_check_digit(body)


def encoded() -> str:
    """Return an address as it stands in the query of a URL."""
    return re.sub("[^A-Za-z0-9._-]", "", next(LISTS["mail"]).split("@")[0]) + "%40web.de"


def pem() -> str:
    lines = "\n".join(some(ALNUM + "+/", 64) for _ in range(3))
    return f"-----BEGIN OPENSSH {'PRIVATE'} KEY-----\n{lines}\n-----END OPENSSH {'PRIVATE'} KEY-----"


# In two parts, so that no scanner of repositories takes them for leaks.
SECRETS: dict[str, Callable[[], str]] = {
    "aws": lambda: "AK" + "IA" + some(UPPER + "234567", 16),
    "awssecret": lambda: some(ALNUM + "+/", 40),
    "github": lambda: "gh" + "p_" + some(ALNUM, 36),
    "gitlab": lambda: "glp" + "at-" + some(ALNUM, 20),
    "openai": lambda: "sk-" + "proj-" + some(ALNUM + "_-", 48) + "T3Blbk" + "FJ" + some(ALNUM, 48),
    "anthropic": lambda: "sk-" + "ant-api03-" + some(ALNUM + "_-", 93) + "AA",
    "stripe": lambda: "sk_" + "live_" + some(ALNUM, 24),
    "slack": lambda: "xo" + f"xb-{some(DIGITS, 12)}-{some(DIGITS, 12)}-{some(ALNUM, 24)}",
    "slackhook": lambda: (
        "https://hooks.slack"
        + f".com/services/T{some(UPPER + DIGITS, 8)}/B{some(UPPER + DIGITS, 8)}/{some(ALNUM, 24)}"
    ),
    "sendgrid": lambda: "S" + f"G.{some(ALNUM, 22)}.{some(ALNUM, 43)}",
    "google": lambda: "AI" + "za" + some(ALNUM + "_-", 34) + "k",
    "gocspx": lambda: "GOC" + "SPX-" + some(ALNUM, 28),
    "npm": lambda: "np" + "m_" + some(ALNUM, 36),
    "pypi": lambda: "py" + "pi-AgEIcHlwaS5vcmc" + some(ALNUM, 120),
    "huggingface": lambda: "h" + "f_" + some(UPPER + LOWER, 34),
    "digitalocean": lambda: "dop" + "_v1_" + some(HEX, 64),
    "vault": lambda: "hv" + "s." + some(ALNUM, 92),
    "shopify": lambda: "shp" + "at_" + some(HEX, 32),
    "telegram": lambda: some("123456789", 1) + some(DIGITS, 9) + ":AA" + some(ALNUM + "_-", 32) + "x",
    "twilio": lambda: "S" + "K" + some(HEX, 32),
    "mailgun": lambda: "ke" + "y-" + some(HEX, 32),
    "postgres": lambda: f"postgres://shop:{some(ALNUM, 14)}@db.internal:5432/shop",
    "redis": lambda: f"redis://:{some(ALNUM, 18)}@cache.internal:6379/0",
    "jwt": lambda: "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIx" + some(ALNUM, 40) + "." + some(ALNUM + "_-", 42) + "c",
    "pem": pem,
    "sentry": lambda: f"https://{some(HEX, 32)}@o44821.ingest.sentry.io/4504",
    "grafana": lambda: "gl" + f"sa_{some(ALNUM, 32)}_{some(HEX, 8)}",
    "newrelic": lambda: "NR" + "AK-" + some(UPPER + DIGITS, 27),
    "linear": lambda: "lin" + "_api_" + some(ALNUM, 40),
    "notion": lambda: "nt" + "n_" + some(ALNUM, 46),
    "databricks": lambda: "da" + "pi" + some(HEX, 32),
    "discord": lambda: "MTA" + some(ALNUM, 21) + f".{some(ALNUM, 6)}." + some(ALNUM + "_-", 37) + "b",
    "azure": lambda: some(ALNUM + "+/", 86) + "==",
    "password": lambda: RNG.choice(("Tr0ub4dor&3x", "w1nter-Regen!88", "kX9#qLm2vB", "Sonne2026$gelb")),
    "atlassian": lambda: "ATA" + "TT3xFfGF0" + some(ALNUM + "_-", 170) + "=" + some(HEX, 8).upper(),
    "figma": lambda: "fig" + "d_" + some(ALNUM + "_-", 39) + "Z",
}
KINDS = {
    "mail": "email",
    "phone": "phone",
    "card": "card",
    "iban": "iban",
    "ipv4": "ip",
    "ipv6": "ip",
    "birth": "birth_date",
    "secret": "secret",
}  # the others are national numbers
LISTS = {f"phone.{name}": cycle(numbers) for name, numbers in PHONES.items()} | {
    f"birth.{name}": cycle(dates) for name, dates in BIRTHS.items()
}
LISTS |= {
    "mail": cycle(MAILS),
    "mail.at": cycle(AT_MAILS),
    "ipv4": cycle(V4),
    "ipv4.small": cycle(V4_SMALL),
    "ipv6": cycle(V6),
}
MADE: dict[str, Callable[[], str]] = {
    "mail.encoded": encoded,
    "ssn": ssn,
    "nino": nino,
    "idnr": german,
    "nir": french,
    "nir.plain": lambda: french(spaced=False),
    "dni": dni,
    "nie": nie,
    "cf": italian,
    "bsn": dutch,
    "pesel": polish,
    "card": lambda: fours(card("4", 16)),
    "card.plain": lambda: card("4", 16),
    "card.dashed": lambda: fours(card("52", 16), "-"),
    "card.mc": lambda: fours(card("53", 16)),
    "card.amex": amex,
    "card.discover": lambda: fours(card("6011", 16)),
}


def value(slot: str) -> str:
    """Return the next value of a slot, such as `iban.DE.spaced`, `phone.US` or `secret.aws`."""
    kind, _, form = slot.partition(".")
    if slot in LISTS:
        return next(LISTS[slot])
    if kind == "secret":
        return SECRETS[form]()
    if kind == "iban":
        country, _, form = form.partition(".")
        number = right_iban(country)
        return {
            "": number,
            "spaced": fours(number),
            "wrapped": fours(number)[:14] + "\n" + fours(number)[15:],
        }[form]
    return MADE[slot]()


def filler(slot: str) -> str:
    """Return what fills a slot of a look-alike: a letter for the kind of characters, and their number."""
    if slot == "p":
        return f"{RNG.randint(1, 9999)}.{some(DIGITS, 2)}"
    if slot == "t2z":
        return f"{RNG.randint(1, 28):02d}"
    kind, count = slot[0], int(slot[1:])
    if kind == "t":
        return f"{RNG.randint(0, 59):02d}"
    if kind == "n":
        return str(RNG.randint(1, 9))
    if kind == "d":
        return some("123456789", 1) + some(DIGITS, count - 1)
    return some({"h": HEX, "u": UPPER, "b": ALNUM + "+/"}[kind], count)
