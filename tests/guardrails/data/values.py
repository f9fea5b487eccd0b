"""Makers of values with right check digits, by a seeded generator. Nothing belongs to anybody, but by chance."""

from __future__ import annotations

import base64
import random
import string

KINDS = {
    "email": "email",
    "card": "card",
    "amex": "card",
    "iban": "iban",
    "ipv4": "ip",
    "ipv6": "ip",
    **dict.fromkeys(
        ("phone_us", "phone_gb", "phone_de", "phone_fr", "phone_es", "phone_it", "phone_nl", "phone_intl"),
        "phone",
    ),
    **dict.fromkeys(
        (
            "ssn",
            "ssn_bare",
            "nino",
            "nino_spaced",
            "nhs",
            "nhs_spaced",
            "idnr",
            "idnr_spaced",
            "nir",
            "nir_spaced",
            "dni",
            "dni_dash",
            "nie",
            "cf",
            "bsn",
            "bsn_spaced",
            "pesel",
        ),
        "national_id",
    ),
    **dict.fromkeys(
        (
            "dob_en",
            "dob_iso",
            "dob_us",
            "dob_slash",
            "dob_dot",
            "dob_dash",
            "dob_text_en",
            "dob_text_de",
            "dob_text_fr",
            "dob_text_es",
            "dob_text_it",
            "dob_text_nl",
        ),
        "birth_date",
    ),
    **dict.fromkeys(
        (
            "aws",
            "openai",
            "anthropic",
            "github",
            "gitlab",
            "slack",
            "stripe",
            "jwt",
            "password",
            "dburl",
            "generic_key",
            "npm",
            "pem",
            "sendgrid",
            "gcp",
        ),
        "secret",
    ),
}
_NAMES = "anna bert chloé dieter elena françois giulia hans ines jan kate luc maria noor olaf pia quinn"
_HOSTS = (
    "example.com mail.example.org firma.example.de poste.example.fr web.example.co.uk kunde-24.de müller.de acme.io "
    "uni.ac.at"
)
_MONTHS = {
    "en": "January February March April May June July August September October November December",
    "de": "Januar Februar März April Mai Juni Juli August September Oktober November Dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
}
_IBANS = {
    "DE": (18, ""),
    "FR": (23, ""),
    "ES": (20, ""),
    "GB": (14, "NWBK"),
    "NL": (10, "ABNA"),
    "AT": (16, ""),
    "PL": (24, ""),
    "BE": (12, ""),
    "CH": (17, ""),
    "PT": (21, ""),
    "IT": (22, "X"),
}


class Values:
    """Maker of values; `make(name)` for a place in a sentence."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)

    def make(self, name: str) -> str:
        language = name.removeprefix("dob_text_") if name.startswith("dob_text_") else None
        return self._dob_text(language) if language else str(getattr(self, name)())

    def digits(self, count: int) -> str:
        return "".join(self.random.choice(string.digits) for _ in range(count))

    def some(self, count: int, letters: str = string.ascii_letters + string.digits) -> str:
        return "".join(self.random.choice(letters) for _ in range(count))

    def pick(self, *choices: str) -> str:
        """Choose a form; `#` in it becomes a digit."""
        form = self.random.choice(choices)
        return "".join(self.digits(1) if letter == "#" else letter for letter in form)

    def email(self) -> str:
        one, two = self.random.choice(_NAMES.split()), self.random.choice(_NAMES.split())
        local = self.random.choice(
            [f"{one}.{two}", f"{one}{self.digits(2)}", f"{one[0]}_{two}", f"{one}+tag", one, f"{one}-{two}"]
        )
        address = f"{local}@{self.random.choice(_HOSTS.split())}"
        return self.random.choice([address, address, address.upper() if address.isascii() else address])

    # Numbers of accounts and cards
    def card(self) -> str:
        number = self._luhn(
            self.pick("4" + "#" * 14, "51" + "#" * 13, "55" + "#" * 13, "2221" + "#" * 11, "6011" + "#" * 11)
        )
        fours = [number[i : i + 4] for i in range(0, 16, 4)]
        return self.random.choice([number, " ".join(fours), "-".join(fours)])

    def amex(self) -> str:
        number = self._luhn("37" + self.digits(12))
        return self.random.choice([number, f"{number[:4]} {number[4:10]} {number[10:]}"])

    def _luhn(self, number: str) -> str:
        total = sum(
            sum(divmod(int(digit) * (2 - place % 2), 10)) for place, digit in enumerate(reversed(number))
        )
        return number + str(-total % 10)

    def iban(self) -> str:
        country = self.random.choice(list(_IBANS))
        count, bank = _IBANS[country]
        account = bank + self.digits(count)
        check = 98 - int("".join(str(int(one, 36)) for one in account + country + "00")) % 97
        number = f"{country}{check:02}{account}"
        spaced = " ".join(number[i : i + 4] for i in range(0, len(number), 4))
        return self.random.choice([number, spaced, spaced, number.lower()])

    # Numbers of phones
    def phone_us(self) -> str:
        area, office = (
            self.random.choice(["212", "312", "415", "617", "202"]),
            self.random.choice(["555", "736", "482"]),
        )
        return self.pick(
            f"({area}) {office}-####",
            f"{area}-{office}-####",
            f"{area}.{office}.####",
            f"+1 {area} {office} ####",
            f"1-{area}-{office}-####",
        )

    def phone_gb(self) -> str:
        return self.pick(
            "020 7946 0###",
            "07700 900###",
            "07911 123###",
            "0161 496 0###",
            "(020) 7946 0###",
            "+44 20 7946 0###",
        )

    def phone_de(self) -> str:
        return self.pick(
            "030 901820",
            "0171 23456##",
            "0171/23456##",
            "(030) 23125 ###",
            "089-12345##",
            "+49 171 23456##",
            "0151 234567##",
            "040 / 4280 ###",
            "0049 30 2312 5###",
        )

    def phone_fr(self) -> str:
        return self.pick(
            "06 12 34 ## ##",
            "01.42.68.##.##",
            "0612##34##",
            "+33 6 12 34 ## ##",
            "04 78 ## ## ##",
            "07-81-##-##-##",
        )

    def phone_es(self) -> str:
        return self.pick(
            "612 345 6##", "612 34 56 ##", "91 123 45 ##", "+34 612 345 6##", "6123456##", "934 12 34 ##"
        )

    def phone_it(self) -> str:
        return self.pick(
            "333 123 45##",
            "333 12345##",
            "06 698 12###",
            "02 1234 56##",
            "+39 333 12345##",
            "33312345##",
            "347-12345##",
        )

    def phone_nl(self) -> str:
        return self.pick(
            "06 12345###",
            "06-12345###",
            "020 123 4###",
            "0612345###",
            "+31 6 12345###",
            "020-12345##",
            "06 12 34 5# ##",
        )

    def phone_intl(self) -> str:
        return self.pick(
            "+49 30 901820",
            "+44 20 7946 0###",
            "+33 1 42 68 ## ##",
            "+1 415 736 ####",
            "+39 06 698 12###",
            "+34 91 123 45 ##",
            "+31 20 123 4###",
            "+48 22 123 4# ##",
            "+41 44 668 1# ##",
            "+43 1 51 4###",
            "0044 20 7946 0###",
            "+4930901820",
            "+44 (0)20 7946 0###",
            "+1-212-736-####",
            "+353 1 234 5###",
            "+1 (415) 736-####",
        )

    # National numbers
    def ssn(self) -> str:
        return self.pick("123-45-6##1", "512-34-7##2", "219-09-9##9", "078-05-1120", "7##-12-3451")

    def ssn_bare(self) -> str:
        return self.random.choice([self.ssn().replace("-", ""), self.ssn().replace("-", " ")])

    def nino(self) -> str:
        return self.pick("AB######C", "JG######A", "SX######D", "jk######b")

    def nino_spaced(self) -> str:
        return self.pick("AB ## ## ## C", "JG ## ## ## A", "WM ## ## ## D")

    def nhs(self) -> str:
        while True:
            number = "9" + self.digits(8)
            check = -sum(int(digit) * (10 - place) for place, digit in enumerate(number)) % 11
            if check != 10:
                return number + str(check)

    def nhs_spaced(self) -> str:
        number = self.nhs()
        return f"{number[:3]} {number[3:6]} {number[6:]}"

    def idnr(self) -> str:
        """Make a number with one digit twice among its first ten, and the check digit of ISO 7064."""
        picked = self.random.sample(string.digits, 9)
        picked.insert(self.random.randrange(2, 9), picked[self.random.randrange(0, 2)])
        if picked[0] == "0":
            return self.idnr()
        product = 10
        for digit in picked:
            product = ((int(digit) + product) % 10 or 10) * 2 % 11
        return "".join(picked) + str((11 - product) % 10)

    def idnr_spaced(self) -> str:
        number = self.idnr()
        return f"{number[:2]} {number[2:5]} {number[5:8]} {number[8:]}"

    def nir_spaced(self) -> str:
        number = self.nir()
        return " ".join(
            (number[0], number[1:3], number[3:5], number[5:7], number[7:10], number[10:13], number[13:])
        )

    def nir(self) -> str:
        number = self.pick("1##0578006###", "2##1175116###", "1##0333063###", "2##0269123###")
        return number + f"{97 - int(number) % 97:02}"

    def dni(self) -> str:
        number = self.digits(8)
        return number + "TRWAGMYFPDXBNJZSQVHLCKE"[int(number) % 23]

    def dni_dash(self) -> str:
        number = self.dni()
        return self.random.choice(
            [f"{number[:8]}-{number[8]}", f"{number[:2]}.{number[2:5]}.{number[5:8]}-{number[8]}"]
        )

    def nie(self) -> str:
        first, number = self.random.randrange(3), self.digits(7)
        letter = "TRWAGMYFPDXBNJZSQVHLCKE"[int(f"{first}{number}") % 23]
        return self.random.choice([f"{'XYZ'[first]}{number}{letter}", f"{'XYZ'[first]}-{number}-{letter}"])

    def cf(self) -> str:
        from stdnum.it import codicefiscale

        number = self.some(6, "BCDFGLMNPRST") + self.pick(
            "85M01H501", "72A41F205", "90T10L219", "01C65A944", "68E23D612"
        )
        number += codicefiscale.calc_check_digit(number)
        return self.random.choice([number, number, number.lower()])

    def bsn(self) -> str:
        while True:
            number = self.random.choice("123456789") + self.digits(7)
            check = sum(int(digit) * (9 - place) for place, digit in enumerate(number)) % 11
            if check != 10:
                return number + str(check)

    def bsn_spaced(self) -> str:
        number = self.bsn()
        return self.random.choice(
            [f"{number[:4]}.{number[4:6]}.{number[6:]}", f"{number[:3]} {number[3:6]} {number[6:]}"]
        )

    def pesel(self) -> str:
        number = f"{self.digits(2)}{self.random.randrange(1, 13):02}{self.random.randrange(1, 29):02}{self.digits(4)}"
        return number + str(
            -sum(int(one) * weight for one, weight in zip(number, (1, 3, 7, 9) * 3, strict=False)) % 10
        )

    # Addresses of computers
    def ipv4(self) -> str:
        rest = (self.random.randrange(256), self.random.randrange(256), self.random.randrange(1, 255))
        return ".".join(map(str, (self.random.choice([203, 198, 81, 192, 10]), *rest)))

    def ipv6(self) -> str:
        return self.random.choice(
            [
                f"2001:db8::{self.some(4, '123456789abcdef')}",
                f"fe80::1ff:fe23:4567:{self.digits(3)}a",
                "2001:0db8:85a3:0000:0000:8a2e:0370:" + self.some(4, "123456789abcdef"),
            ]
        )

    # Dates of birth
    def _dob_text(self, language: str) -> str:
        day, year = str(self.random.randrange(1, 29)), str(self.random.randrange(1930, 2012))
        month = self.random.choice(_MONTHS[language].split())
        forms = {
            "en": (
                f"{day} {month} {year}",
                f"{month} {day}, {year}",
                f"{month[:3]} {day}, {year}",
                f"{day}th of {month} {year}",
                f"{day} {month[:3]} {year}",
            ),
            "de": (f"{day}. {month} {year}", f"{int(day):02}. {month} {year}"),
            "es": (f"{day} de {month} de {year}", f"{day} de {month} del {year}"),
        }
        return self.random.choice(forms.get(language, (f"{day} {month} {year}",)))

    def dob_en(self) -> str:
        return self.random.choice([self._dob_text("en"), self.dob_us(), self.dob_iso()])

    def _numbered(self, sign: str, order: str = "dmy") -> str:
        parts = {
            "d": f"{self.random.randrange(1, 29):02}",
            "m": f"{self.random.randrange(1, 13):02}",
            "y": str(self.random.randrange(1930, 2012)),
        }
        return sign.join(parts[one] for one in order)

    def dob_iso(self) -> str:
        return self._numbered("-", "ymd")

    def dob_us(self) -> str:
        return self._numbered("/", "mdy")

    def dob_slash(self) -> str:
        return self._numbered("/")

    def dob_dot(self) -> str:
        return self._numbered(".")

    def dob_dash(self) -> str:
        return self._numbered("-")

    # Secrets
    def aws(self) -> str:
        return "AKIA" + self.some(16, string.ascii_uppercase + "234567")

    def openai(self) -> str:
        return self.random.choice(["sk-proj-" + self.some(74), "sk-" + self.some(48)])

    def anthropic(self) -> str:
        return "sk-ant-api03-" + self.some(93) + "AA"

    def github(self) -> str:
        return self.random.choice(
            [
                "ghp_" + self.some(36),
                "gho_" + self.some(36),
                "github_pat_" + self.some(22) + "_" + self.some(59),
            ]
        )

    def gitlab(self) -> str:
        return "glpat-" + self.some(20)

    def slack(self) -> str:
        return f"xoxb-{self.digits(12)}-{self.digits(12)}-{self.some(24)}"

    def stripe(self) -> str:
        return self.random.choice(["sk_live_", "rk_live_", "sk_test_"]) + self.some(24)

    def jwt(self) -> str:
        parts = (
            b'{"alg":"HS256","typ":"JWT"}',
            b'{"sub":"' + self.digits(10).encode() + b'","name":"J"}',
            self.random.randbytes(32),
        )
        return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)

    def password(self) -> str:
        return self.random.choice(
            [
                "Hunter" + self.digits(2),
                "Tr0ub4dor&3",
                "s3cret!" + self.digits(2),
                "qwerty" + self.digits(3),
                "P@ssw0rd" + self.digits(1),
                "Blau-Wal7",
            ]
        )

    def dburl(self) -> str:
        scheme = self.random.choice(["postgres", "postgresql", "mysql", "mongodb+srv", "redis", "amqp"])
        return f"{scheme}://app:{self.some(12)}@db.example.com/main"

    def generic_key(self) -> str:
        return self.some(16) + self.digits(4) + self.some(12)

    def npm(self) -> str:
        return "npm_" + self.some(36)

    def pem(self) -> str:
        body = "\n".join(self.some(64) for _ in range(8))
        return f"-----BEGIN RSA PRIVATE KEY-----\n{body}\n-----END RSA PRIVATE KEY-----"

    def sendgrid(self) -> str:
        return f"SG.{self.some(22)}.{self.some(43)}"

    def gcp(self) -> str:
        return "AIza" + self.some(35)
