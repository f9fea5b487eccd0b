"""Values for `mixed_texts.txt`: made up, with right check digits, the same in every run."""

import random
import string
from collections.abc import Callable
from itertools import cycle

from stdnum import luhn
from stdnum.de import idnr
from stdnum.fr import nir
from stdnum.iso7064 import mod_11_10
from stdnum.it import codicefiscale
from stdnum.pl import pesel

RNG = random.Random(24)  # noqa: S311: values of a test set, not secrets
UPPER, LOWER, DIGITS = string.ascii_uppercase, string.ascii_lowercase, string.digits
ALNUM = UPPER + LOWER + DIGITS
HEX = "0123456789abcdef"

MAILS = (
    "amara.okafor@posteo.example", "t.linden+shop@mail-box.co.uk", "J.Beck@Fabrik-Nord.de", "mira_k@poczta.onet.pl", "luc.perrin@orange.fr",
    "sanne@dewit.nl", "a.ferri@studio.legale.it", "elena-prieto@correo.es", "x7@x.io", "support+ticket-4821@help.company.museum",
    "jörg.müller@grünau.de", "o'brien@eircom.net", "dev@10gen.com", "first.middle.last@sub.dept.university.edu", "info@123reg.co",
    "pilar%sales@old-relay.com", "q@q.cc", "hana_schuster_1990@gmx.at", "rossi.carla@pec.it", "no-reply@k8s.internal.cloud",
    "Zażółć@przyklad.pl", "ines.moreau@laposte.net", "femke1987@hotmail.com", "r_d@photography.studio",
)  # fmt: skip
AT_MAILS = ("orga (at) sommerfest.de", "vera[at]club-nord.org", "kai [at] verein [dot] de", "lena (at) tanz (dot) ch")
PHONES = {
    "US": ("(415) 555-2671", "+1 212-736-5000", "312.642.1188", "+1 (646) 387 9021", "1-800-275-2273", "206-682-2040"),
    "GB": ("+44 20 7946 0018", "+44 (0)161 496 0999", "07700 900461"),
    "DE": ("+49 30 901820", "+49 171 2345678", "+49 (0) 89 2180-0", "0049 221 4710123"),
    "FR": ("+33 6 12 34 56 78", "+33 (0)1 42 68 53 00", "0033 4 72 10 30 30"),
    "ES": ("+34 612 34 56 78", "+34 913 40 41 00"),
    "IT": ("+39 347 123 4567", "+39 06 6982", "333 8471920"),
    "NL": ("+31 6 12345678", "+31 20 624 1111"),
    "PL": ("+48 601 234 567", "601-872-334", "+48 22 694 50 00"),
    "AT": ("+43 1 58858-0", "+43 664 1234567"),
    "CH": ("+41 44 668 18 00", "+41 79 123 45 67"),
    "BE": ("+32 2 501 02 11", "+32 470 12 34 56"),
    "SE": ("+46 8 508 00 000", "+46 70 123 45 67"),
    "PT": ("+351 21 310 09 00", "+351 912 345 678"),
    "BR": ("+55 11 3256-4000", "+55 (21) 99876-5432"),
    "IN": ("+91 98765 43210", "+91 11 2301 4104"),
    "JP": ("+81 3-3201-3331", "+81 90 1234 5678"),
    "AU": ("+61 2 9374 4000", "+61 412 345 678"),
    "IE": ("+353 1 679 6111", "+353 87 123 4567"),
    "DK": ("+45 33 12 45 67", "+45 70 10 20 30"),
    "DE.national": ("030 901820", "0171 2345678", "0221/4710123", "(089) 2180 1234"),
    "FR.national": ("06 12 34 56 78", "01.42.68.53.00", "0472103030"),
    "ES.national": ("612 345 678", "913 404 100"),
    "NL.national": ("06-12345678", "020 624 1111"),
    "GB.national": ("020 7946 0958", "07911 123456"),
    "DE.wrapped": ("+49 171\n9876543",),
    "US.plain": ("+14155552671",),
}
BIRTHS = {
    "en": ("12 June 1984", "July 4th, 1979", "3rd of March 1966"),
    "iso": ("1990-02-28", "1958-11-03", "2001-07-19", "1973-12-31"),
    "de": ("07.09.1962", "3. April 1988", "21.1.75"),
    "fr": ("5 mai 1990", "1er août 1971"),
    "es": ("14 de febrero de 1975", "2 de octubre de 1993"),
    "it": ("9 novembre 1981",),
    "nl": ("17 maart 1969", "23-08-1994"),
    "pl": ("12.05.1981", "3 lutego 1977"),
    "slash": ("14/02/1975", "03/11/1986", "28/06/1999"),
    "us": ("10/23/1982",),
}
V4 = ("203.0.113.77", "198.51.100.9", "192.168.178.24", "172.16.254.3", "185.199.108.153", "91.198.174.192", "10.0.200.12", "151.101.1.140")
V4_SMALL = ("8.8.4.4", "10.0.0.1", "10.2.3.4", "10.1.1.20", "1.1.1.1", "51.15.42.7")
V6 = ("2001:db8:85a3::8a2e:370:7334", "fe80::1ff:fe23:4567:890a", "2a02:8109:9ac0:1b2c:5d3e:4f60:7182:93a4", "2001:4860:4860::8888", "::ffff:203.0.113.9")
COUNTRIES = {"GB": ("NWBK601613", 8), "DE": ("", 18), "PL": ("", 24), "FR": ("", 23), "NL": ("RABO", 10), "IT": ("X05428", 17), "ES": ("", 20)} | {
    "AT": ("", 16), "BE": ("", 12), "CH": ("", 17), "LU": ("001", 13), "SE": ("", 20), "PT": ("", 21),
}  # fmt: skip


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
    head, digits = COUNTRIES[country]
    account = head + some(DIGITS, digits)
    number = "".join(str(int(letter, 36)) for letter in account + country + "00")
    return f"{country}{98 - int(number) % 97:02d}{account}"


def ssn() -> str:
    return f"{RNG.randint(101, 665)}-{RNG.randint(11, 98)}-{RNG.randint(1001, 9989)}"


def nino() -> str:
    number = RNG.choice(("AB", "JC", "WK", "SR")) + some(DIGITS, 6) + RNG.choice("ABCD")
    return number if RNG.random() < 0.5 else f"{number[:2]} {number[2:4]} {number[4:6]} {number[6:8]} {number[8]}"


def german() -> str:
    while True:
        body = list(DIGITS)
        RNG.shuffle(body)
        body[RNG.randint(1, 9)] = body[0]
        number = "".join(body) + mod_11_10.calc_check_digit("".join(body))
        if idnr.is_valid(number):
            return number if RNG.random() < 0.4 else f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"


def french(spaced: bool = True) -> str:
    body = f"{RNG.choice('12')}{RNG.randint(40, 99)}{RNG.randint(1, 12):02d}{RNG.choice(('69', '75', '13', '33'))}{RNG.randint(100, 380)}{RNG.randint(100, 900)}"
    key = nir.calc_check_digits(body)
    return f"{body[0]} {body[1:3]} {body[3:5]} {body[5:7]} {body[7:10]} {body[10:13]} {key}" if spaced else body + key


def dni() -> str:
    number = RNG.randint(10_000_000, 79_999_999)
    return f"{number}{RNG.choice(('', '-'))}{'TRWAGMYFPDXBNJZSQVHLCKE'[number % 23]}"


def nie() -> str:
    number = RNG.randint(1_000_000, 9_999_999)
    head = RNG.choice("XYZ")
    return f"{head}{number}{'TRWAGMYFPDXBNJZSQVHLCKE'[int(str('XYZ'.index(head)) + str(number)) % 23]}"


def italian() -> str:
    body = f"{RNG.choice(('RSSMRA', 'CNTGLI', 'FRRLDA', 'BNCLCU'))}{RNG.randint(40, 99)}{RNG.choice('ABCDEHLMPRST')}{RNG.randint(1, 28):02d}{RNG.choice(('H501', 'F205', 'L219'))}"
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
    "slackhook": lambda: "https://hooks.slack" + f".com/services/T{some(UPPER + DIGITS, 8)}/B{some(UPPER + DIGITS, 8)}/{some(ALNUM, 24)}",
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
LISTS = {f"phone.{name}": cycle(numbers) for name, numbers in PHONES.items()} | {f"birth.{name}": cycle(dates) for name, dates in BIRTHS.items()}
LISTS |= {"mail": cycle(MAILS), "mail.at": cycle(AT_MAILS), "ipv4": cycle(V4), "ipv4.small": cycle(V4_SMALL), "ipv6": cycle(V6)}
MADE: dict[str, Callable[[], str]] = {
    "mail.encoded": lambda: next(LISTS["mail"]).split("@")[0].replace("'", "").encode("ascii", "ignore").decode().replace("%", "") + "%40web.de",
    "ssn": ssn, "nino": nino, "idnr": german, "nir": french, "nir.plain": lambda: french(spaced=False), "dni": dni, "nie": nie, "cf": italian, "bsn": dutch, "pesel": polish,
    "card": lambda: fours(card("4", 16)), "card.plain": lambda: card("4", 16), "card.dashed": lambda: fours(card("52", 16), "-"),
    "card.mc": lambda: fours(card("53", 16)), "card.amex": amex, "card.discover": lambda: fours(card("6011", 16)),
}  # fmt: skip


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
        return {"": number, "spaced": fours(number), "wrapped": fours(number)[:14] + "\n" + fours(number)[15:]}[form]
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
