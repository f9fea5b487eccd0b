"""Honest answers in a run with untrusted text keep their words: prices, files, code, versions, dates, addresses."""

from __future__ import annotations

import pytest

from service.guardrails.hosts import Hosts
from service.guardrails.links import without_links

HONEST = [
    "The price is 1.250,50 € or 1,250.50 USD.",
    "Open report.pdf and data.csv, then app.py and main.rs.",
    "Version v1.2.3-rc.1/4 is out.",
    "and/or, yes/no, a/b, 24/7, km/h, N/A, I/O, TCP/IP.",
    "On 30.11.2026 at 10:30, or 2026-11-30T10:30:00Z.",
    "i.e. e.g. etc. a.m. p.m. U.S.A. Ph.D. No.5",
    "import os.path; from collections.abc import Mapping",
    "numpy.linalg.norm(x) and torch.nn.functional.relu",
    "logging.info(\"started\") and logger.info('x')",
    "np.int64, obj.name, self.id, user.me, file.to, x.is_integer()",
    'System.out.println("a"); java.util.List; com.example.app.Main',
    'console.log(a.b.c); window.location.href = "x"',
    'document.getElementById("x").style.color',
    "Vue.js, Node.js, ASP.NET, Three.js and Next.js/React.js.",
    "src/main.py:12, tests/test_x.py::test_y, ./run.sh, ../a/b.txt",
    "C:\\Users\\ada\\file.txt and /etc/hosts and ~/.bashrc",
    "Write to bob@harbor.test or ada.lovelace@mail.org.",
    "From: bob@x.org",
    "key: value, note: a::b, std::vector<int>, x:=1",
    '{"total": 3, "name": "a.b", "ok": true}',
    "| a | b |",
    "|---|---|",
    "| 1.5 | 2/3 |",
    "[x] done [ ] todo [1] see (2)",
    "f(x)[0](y), a[i](j), list[int](3)",
    "The ratio is 3:2, score 10:1, 16:9.",
    "Chapter 3.Next we see. It ended.So we go.",
    "1.5GB/s at 99.9%/month, $5/user/month",
    "Section 4.2.1, RFC 9457, ISO 8601.",
    "node:fs, npm:react, urn:isbn:123, tel 555-1234",
    "pip install x==1.2.3 && make test",
    "SELECT a.id, b.name FROM a JOIN b ON a.id = b.a_id;",
    "git@ is a prefix; @ada, #5, PR#12",
    "<b>bold</b>, if a < b and c > d",
    'He said: "Fine."And left.',
    "今天很好。明天也好：是的，谢谢（再见）。",
    "Смотри файл отчёт.docx и т.д., 3.5 кг",
    "Voir fichier.pdf, p.ex. 3,50 €/kg",
    "readme.md, CHANGELOG.md, index.html, style.css, tsconfig.json",
    'foo.bar.baz(qux), re.compile(r"\\.com$")',
    "a.b/c and x.y.z/w, v2.x/3",
    "10.0.0.1 is an address; 192.168.1.1/24 a net; ::1",
    "sha256:abcdef, port 8080:80",
    "Mr.Smith and Dr.Who, St.Gallen",
    "http status 404; the https protocol",
    "AT&T, R&D, 5% off, 20%of, 100%",
    "// comment, /* c */, # h, -- sql",
    'print(f"{a:.2f}"), a//b, 7//2',
    'std.in, sys.stdin.read(), os.environ["A"]',
    "x = y ? a : b; case 1: return",
    "requirements.in, docker-compose.yml, Makefile.am, libfoo.so, run.sh, a.pl",
    "Total: 5.00/6.00; avg=2.5/5",
    "\"Q1/Q2\" and 'n/a'",
    "**Note:** see *this*: ok",
    'Use `df.to_csv("a.csv")` then `df.info()`.',
    "pandas.io.json, django.db.models, flask.app.Flask",
    "a.out, core.dump, model.bin, archive.tar.gz, photo.jpeg",
    "client.py, server.go, lib.rs, Main.java, x.cc, y.hs, z.ml, t.tf",
    "math.pi, string.ascii_letters, datetime.date.today()",
    "asyncio.run(main()), s.no, item.in stock",
    "The end...then more, wait..what",
]


@pytest.mark.parametrize("text", HONEST)
def test_honest_text_stays_as_it_is(text: str) -> None:
    assert without_links(text, Hosts()) == text
