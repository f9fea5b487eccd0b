"""Values of the fresh sets, by another hand than `values.py`."""

from __future__ import annotations

import base64
import ipaddress
import json
import random
import string
from collections.abc import Callable
from datetime import date, timedelta

from stdnum import iban, luhn
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.it import codicefiscale
from stdnum.nl import bsn
from stdnum.pl import pesel

from tests.guardrails.data.fresh_forms import ALNUM, CAPITALS, HEX, HOSTS, IBANS, MONTHS, NAMES, PHONES


class FreshValues:
    """Makes a value of a place such as `phone_de`; the same seed makes the same values."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def make(self, place: str) -> tuple[str, str]:
        """Return the kind of a place, "" for a look-alike, and a value."""
        name, _, variant = place.partition("_")
        makers: dict[str, Callable[[str], str]] = {
            name: getattr(self, f"_{name}") for name in (*KINDS, *OTHERS) if hasattr(self, f"_{name}")
        }
        return KINDS.get(name, ""), makers[name](variant)

    def _digits(self, count: int) -> str:
        return "".join(self.random.choices("0123456789", k=count))

    def _some(self, letters: str, count: int) -> str:
        return "".join(self.random.choices(letters, k=count))

    def _mail(self, variant: str) -> str:
        some = self.random
        local = some.choice(NAMES.split("|")) + some.choice(["", "", self._digits(2), "+bills", ".x"])
        found = f"{local}@{some.choice(HOSTS.split('|'))}"
        return found.upper() if variant == "upper" or some.random() < 0.1 else found

    def _phone(self, country: str) -> str:
        form = self.random.choice(PHONES[country].split("|"))
        return self._filled(form)

    def _intl(self, country: str) -> str:
        forms = [one for one in PHONES[country].split("|") if one.startswith(("+", "00"))]
        return self._filled(self.random.choice(forms))

    def _filled(self, form: str) -> str:
        letters = {"%": "8", "#": "0123456789", "8": "2345678"}
        return "".join(self.random.choice(letters.get(one, one)) for one in form)

    def _card(self, variant: str) -> str:
        brands = {"4": 16, "51": 16, "5412": 16, "2223": 16, "37": 15, "34": 15, "6011": 16}
        prefix = variant or self.random.choice([*brands])
        body = prefix + self._digits(brands[prefix] - len(prefix) - 1)
        number = body + luhn.calc_check_digit(body)
        cuts = (4, 10) if len(number) == 15 else (4, 8, 12)
        sep = self.random.choice([" ", " ", "-", ""])
        return sep.join(number[a:b] for a, b in zip((0, *cuts), (*cuts, None), strict=True))

    def _iban(self, variant: str) -> str:
        country = variant or self.random.choice([*IBANS])
        while True:
            bban, count = "", ""
            for one in IBANS[country]:
                if one.isdigit():
                    count += one
                else:
                    letters = {"d": "0123456789", "A": string.ascii_uppercase, "x": "0123456789"}[one]
                    bban, count = bban + self._some(letters, int(count)), ""
            found = country + iban.calc_check_digits(f"{country}00{bban}") + bban
            if country == "ES" and not iban.is_valid(found):
                continue
            break
        if self.random.random() < 0.5:
            found = iban.format(found)
        return found.lower() if self.random.random() < 0.1 else found

    def _ssn(self, variant: str) -> str:
        area, group, serial = (
            self.random.choice([219, 457, 612, 78, 321]),
            self.random.randint(1, 99),
            self.random.randint(1, 9999),
        )
        sep = {"": "-", "plain": "", "space": " "}[variant]
        return sep.join((f"{area:03d}", f"{group:02d}", f"{serial:04d}"))

    def _nino(self, variant: str) -> str:
        prefix = self.random.choice(["AB", "JG", "SL", "PW", "HR", "CE"])
        digits = self._digits(6)
        end = self.random.choice("ABCD")
        spaced = f"{prefix} {digits[:2]} {digits[2:4]} {digits[4:]} {end}"
        return spaced if self.random.random() < 0.5 else spaced.replace(" ", "")

    def _nhs(self, variant: str) -> str:
        while True:
            found = self.random.choice("4567") + self._digits(9)
            if nhs.is_valid(found):
                return nhs.format(found) if self.random.random() < 0.7 else found

    def _steuer(self, variant: str) -> str:
        while True:
            digits = self.random.sample("0123456789", 9)
            digits.insert(self.random.randint(1, 8), self.random.choice(digits))
            body = "".join(digits)
            if body[0] == "0":
                continue
            found = next((body + end for end in "0123456789" if idnr.is_valid(body + end)), "")
            if found:
                return idnr.format(found) if self.random.random() < 0.6 else found

    def _nir(self, variant: str) -> str:
        some = self.random
        month, place = f"{some.randint(1, 12):02d}", f"{some.randint(1, 89):02d}"
        body = f"{some.choice('12')}{some.randint(45, 99)}{month}{place}{self._digits(6)}"
        found = body + nir.calc_check_digits(body)
        return nir.format(found) if self.random.random() < 0.6 else found

    def _dni(self, variant: str) -> str:
        body = self._digits(8)
        end = dni.calc_check_digit(body)
        return self.random.choice(
            [body + end, f"{body}-{end}", f"{body[:2]}.{body[2:5]}.{body[5:]}-{end}", f"{body} {end}"]
        )

    def _nie(self, variant: str) -> str:
        body = self.random.choice("XYZ") + self._digits(7)
        end = nie.calc_check_digit(body)
        return self.random.choice([body + end, f"{body[0]}-{body[1:]}-{end}"])

    def _cf(self, variant: str) -> str:
        day = self.random.randint(1, 28) + self.random.choice((0, 40))
        year, month = self.random.randint(40, 99), self.random.choice("ABCDEHLMPRST")
        town = self.random.choice("FHLG") + self._digits(3)
        body = f"{self._some('BCDFGLMNRST', 6)}{year}{month}{day:02d}{town}"
        found = body + codicefiscale.calc_check_digit(body)
        return found.lower() if self.random.random() < 0.15 else found

    def _bsn(self, variant: str) -> str:
        while True:
            found = self.random.choice("123456") + self._digits(8)
            if bsn.is_valid(found):
                return found if self.random.random() < 0.6 else f"{found[:4]}.{found[4:6]}.{found[6:]}"

    def _pesel(self, variant: str) -> str:
        year, month, day = (self.random.randint(*one) for one in ((50, 99), (1, 12), (1, 28)))
        body = f"{year}{month:02d}{day:02d}{self._digits(4)}"
        return body + pesel.calc_check_digit(body)

    def _ip(self, variant: str) -> str:
        some = self.random
        if variant == "six":
            number = (0x2A02 << 112) | (some.getrandbits(48) << 64) | some.getrandbits(some.choice((16, 64)))
            found = ipaddress.IPv6Address(number)
            return found.exploded if some.random() < 0.3 else found.compressed
        return ".".join(str(some.randint(1, 254)) for _ in range(4)).replace("127.", "128.")

    def _born(self, language: str) -> str:
        day = date(1938, 1, 1) + timedelta(days=self.random.randint(0, 25_000))
        month = MONTHS[language].split("|")[day.month - 1]
        forms = {
            "en": [
                f"{month} {day.day}, {day.year}",
                f"{day.day} {month} {day.year}",
                f"{day:%m/%d/%Y}",
                f"{day}",
                f"{day:%d/%m/%Y}",
                f"{month[:3]} {day.day}, {day.year}",
            ],
            "de": [
                f"{day:%d.%m.%Y}",
                f"{day.day}. {month} {day.year}",
                f"{day.day}.{day.month}.{day.year}",
                f"{day:%d.%m.%y}",
            ],
            "fr": [
                f"{day:%d/%m/%Y}",
                f"{day.day} {month} {day.year}",
                f"{day:%d-%m-%Y}",
                f"1er {month} {day.year}",
            ],
            "es": [f"{day:%d/%m/%Y}", f"{day.day} de {month} de {day.year}", f"{day:%d-%m-%Y}"],
            "it": [f"{day:%d/%m/%Y}", f"{day.day} {month} {day.year}", f"{day:%d.%m.%Y}"],
            "nl": [f"{day:%d-%m-%Y}", f"{day.day} {month} {day.year}", f"{day.day}-{day.month}-{day.year}"],
        }
        return self.random.choice(forms[language])

    def _key(self, vendor: str) -> str:
        some = self._some
        made: dict[str, Callable[[], str]] = {
            "aws": lambda: (
                self.random.choice(["AKIA", "ASIA"]) + some("ABCDEFGHIJKLMNOPQRSTUVWXYZ234567", 16)
            ),
            "google": lambda: "AIza" + some(ALNUM + "_-", 34) + some(ALNUM, 1),
            "github": lambda: self.random.choice(["ghp_", "gho_", "ghs_"]) + some(ALNUM, 36),
            "githubpat": lambda: f"github_pat_{some(ALNUM, 22)}_{some(ALNUM, 59)}",
            "gitlab": lambda: "glpat-" + some(ALNUM, 20),
            "slack": lambda: f"xoxb-{self._digits(12)}-{self._digits(12)}-{some(ALNUM, 24)}",
            "stripe": lambda: self.random.choice(["sk_live_", "rk_live_", "sk_test_"]) + some(ALNUM, 24),
            "openai": lambda: "sk-proj-" + some(ALNUM, 48),
            "anthropic": lambda: f"sk-ant-api03-{some(ALNUM + '_-', 92)}AA",
            "npm": lambda: "npm_" + some(ALNUM, 36),
            "pypi": lambda: "pypi-AgEIcHlwaS5vcmc" + some(ALNUM + "_-", 60) + some(ALNUM, 4),
            "sendgrid": lambda: f"SG.{some(ALNUM, 22)}.{some(ALNUM, 43)}",
            "twilio": lambda: "SK" + some(HEX, 32),
            "jwt": self._jwt,
            "hook": lambda: (
                f"hooks.slack.com/services/T{some(CAPITALS, 8)}/B{some(CAPITALS, 8)}/{some(ALNUM, 24)}"
            ),
        }
        return made[vendor or self.random.choice([*made])]()

    def _jwt(self) -> str:
        parts = [{"alg": "HS256", "typ": "JWT"}, {"sub": self._digits(8), "exp": 1_800_000_000}]
        texts = [base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts]
        return ".".join([*texts, self._some(ALNUM + "_-", 42) + "A"])

    def _pass(self, variant: str) -> str:
        words = ["Sunshine", "tiger", "Bahnhof", "lluvia", "Corgi"]
        some = self.random
        return some.choice(
            [
                f"{some.choice(words)}{self._digits(4)}!",
                self._some(ALNUM, 12) + "7",
                f"{some.choice(words)}#{self._digits(3)}x",
                f"{some.choice(words)}-{some.choice(words)}-{self._digits(2)}",
            ]
        )

    # What only looks like it.
    def _num(self, count: str) -> str:
        return self.random.choice("123456789") + self._digits(int(count) - 1)

    def _hex(self, count: str) -> str:
        return self._some(HEX, int(count))

    def _uuid(self, variant: str) -> str:
        return "-".join(self._some(HEX, count) for count in (8, 4, 4, 4, 12))

    def _isbn(self, variant: str) -> str:
        return self.random.choice(
            ["978-3-16-148410-0", "978-0-306-40615-7", "978-2-07-036822-8", "0-19-853453-1"]
        )

    def _badcard(self, variant: str) -> str:
        while True:
            found = "4" + self._digits(15)
            if not luhn.is_valid(found):
                return " ".join(found[n : n + 4] for n in range(0, 16, 4)) if variant else found

    def _badiban(self, variant: str) -> str:
        while True:
            found = "DE" + self._digits(20)
            if not iban.is_valid(found):
                return found

    def _version(self, variant: str) -> str:
        return ".".join(str(self.random.randint(0, 40)) for _ in range(int(variant or 3)))

    def _date(self, language: str) -> str:
        return self._born(language).replace(" 19", " 20")

    def _money(self, variant: str) -> str:
        return self.random.choice(["1,249.99", "12.450,00", "3 200,50", "89.95", "1'050.00", "999999.99"])


KINDS = {
    "mail": "email",
    "phone": "phone",
    "intl": "phone",
    "card": "card",
    "iban": "iban",
    "ip": "ip",
    "born": "birth_date",
    "key": "secret",
    "pass": "secret",
    **dict.fromkeys(
        ("ssn", "nino", "nhs", "steuer", "nir", "dni", "nie", "cf", "bsn", "pesel"), "national_id"
    ),
}
OTHERS = ("num", "hex", "uuid", "isbn", "badcard", "badiban", "version", "date", "money")
