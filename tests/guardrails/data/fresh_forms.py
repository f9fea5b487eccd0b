"""Forms of the values of the fresh sets: names, months, phones, accounts."""

from __future__ import annotations

import string

HEX, ALNUM = "0123456789abcdef", string.ascii_letters + string.digits
CAPITALS = string.ascii_uppercase + string.digits
NAMES = "marta|jonas|i.weber|keith_osei|a.dubois|lucia.fernandez|tvdberg|gianni|no-reply|kasia.nowak|sales9|q"
HOSTS = "gmail.com|web.de|orange.fr|correo.es|libero.it|ziggo.nl|acme-tools.co.uk|mail.uni-bonn.de|x.io|wp.pl"
MONTHS = {
    "en": "January|February|March|April|May|June|July|August|September|October|November|December",
    "de": "Januar|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember",
    "fr": "janvier|février|mars|avril|mai|juin|juillet|août|septembre|octobre|novembre|décembre",
    "es": "enero|febrero|marzo|abril|mayo|junio|julio|agosto|septiembre|octubre|noviembre|diciembre",
    "it": "gennaio|febbraio|marzo|aprile|maggio|giugno|luglio|agosto|settembre|ottobre|novembre|dicembre",
    "nl": "januari|februari|maart|april|mei|juni|juli|augustus|september|oktober|november|december",
}
# National and international forms; #: any digit, 8: 2 to 8.
PHONES = {
    "us": "(212) 555-8###|415-876-8###|+1 646 876 8###|312.876.8###|1-800-876-8###|+13128768###|(617)876-8###",
    "gb": "020 7946 8###|07700 988###|+44 20 7946 8###|+44 (0)161 496 8###|07700988###|01632 968###|+447700988###",
    "de": "030 888####|0171 888####|+49 30 888####|0049 171 888####|+49 (0)89 888####|0221/888####|+49171888####",
    "fr": "01 42 68 8# ##|06.12.88.##.8#|+33 6 12 88 ## 8#|06128888##|+33 (0)1 42 68 8# ##|0033 6 12 88 ## 8#",
    "es": "612 88# #8#|91 488 8# ##|+34 612 88 ## 8#|+34 914 88# #8#|61288##8#|0034 612 88# #8#|934-88-8#-##",
    "it": "347 888####|06 4888###|+39 347 888 ####|+39 02 4888####|02-4888####|0039 347 888####|347888####",
    "nl": "06-12888###|020 488 8###|+31 6 1288 ##8#|0031 20 488 8###|+31 (0)6 12888###|06128888##|06 12 88 ## 8#",
    "pl": "+4% 601 88# #8#|+4% 22 488 8# ##",
}
IBANS = {
    "DE": "18d",
    "GB": "4A14d",
    "FR": "10d11x2d",
    "ES": "20d",
    "IT": "1A10d12d",
    "NL": "4A10d",
    "PL": "24d",
    "BE": "12d",
    "AT": "16d",
    "CH": "17d",
    "PT": "21d",
    "IE": "4A14d",
}
