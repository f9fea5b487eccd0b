"""Print docs/licences.md, the licences of all dependencies: `python -m scripts.licences_page`."""

from __future__ import annotations

import re
import sys
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
HEAD = """# Licences

Generated from the packages' own metadata by `make docs`; `make check` compares them. Slipway itself is under the
[Apache License 2.0](../LICENSE). Packages are installed unmodified and apart from it, which
the LGPL and the MPL ask for.

Every file of every package is pinned by its SHA-256 hash in `requirements*.txt`: a package that is replaced under its
version is refused at installation ([deploy](deploy.md#what-is-installed)).
"""
AGED_HEAD = """
## No release for two years, or archived

With the date of the newest release, as the index told it on 2026-11-30. `make audit` asks for known faults.

| package | newest release | why it is used all the same |
| --- | --- | --- |
"""
# Installed on other systems or older Pythons only, where this page may not be generated.
ELSEWHERE = {
    "async-timeout": "Apache-2.0",
    "httpx2-jsfetch": "BSD-3-Clause",
    "pywin32": "PSF-2.0",
}
AGED = {
    "async-timeout": ("2024-11-06", "redis-py needs it on Python before 3.11.3; the image has a newer one"),
    "blinker": ("2024-11-08", "Flask's signals; maintained by Flask's own team"),
    "click-didyoumean": ("2024-03-24", "Celery's command line: suggestions for mistyped commands"),
    "click-plugins": ("2025-06-25", "Celery's command line; archived by its author, Celery still names it"),
    "itsdangerous": ("2024-04-16", "Flask's signatures; maintained by Flask's own team, complete"),
    "ordered-set": ("2022-01-26", "flask-limiter names it: one module of pure Python without dependencies"),
    "python-dateutil": ("2024-03-01", "Celery and boto3 name it; the usual library for its task"),
    "rfc8785": ("2024-09-27", "canonical JSON of a fixed standard, by Trail of Bits; complete"),
    "sniffio": ("2024-02-25", "the Anthropic SDK names it: one module of a hundred lines"),
    "vine": ("2023-11-05", "Celery's promises; maintained by Celery's own team"),
}
NAMES = {  # words that metadata uses, as SPDX
    "Apache 2.0": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "BSD": "BSD-3-Clause",
    "Dual License": "Apache-2.0 OR BSD-3-Clause",
    "LGPL": "LGPL-2.1-or-later",
    "MIT License": "MIT",
    "New BSD": "BSD-3-Clause",
}
PIN = re.compile(r"(?m)^([a-z0-9][a-z0-9._-]*)==(\S+?)(?: ; (.+?))?(?: \\)?$")


def pins(name: str) -> list[tuple[str, str]]:
    """Return the packages of a lock file with their versions."""
    return [(found[1], found[2]) for found in PIN.finditer((ROOT / name).read_text())]


def licence(package: str) -> str:
    """Return the SPDX name of a package's licence; raises LookupError where none can be told."""
    try:
        found = _told(distribution(package))
    except PackageNotFoundError:
        found = ELSEWHERE.get(package, "")
    if not found:
        raise LookupError(
            f"no licence is known of {package}: read it, then add it to scripts/licences_page.py"
        )
    return NAMES.get(found, found)


def _told(package: Distribution) -> str:
    metadata = package.metadata
    if "License-Expression" in metadata:
        return str(metadata["License-Expression"])
    prefix = "License :: OSI Approved :: "
    names = [line.removeprefix(prefix) for line in metadata.get_all("Classifier") or [] if prefix in line]
    told = str(metadata["License"]) if "License" in metadata else ""
    if told and "\n" not in told and len(told) < 40:
        return told
    return names[0] if len(names) == 1 else ""


def page() -> str:
    """Return the page: the packages of the image, then those of other providers."""
    image, providers = pins("requirements.txt"), pins("requirements-providers.txt")
    further = [pin for pin in providers if pin not in image]
    aged = "".join(f"| {name} | {date} | {why} |\n" for name, (date, why) in AGED.items())
    return (
        f"{HEAD}\n## In every installation\n\n{_table(image)}"
        f"\n## With Bedrock or Vertex AI\n\n{_table(further)}{AGED_HEAD}{aged}"
    )


def _table(packages: list[tuple[str, str]]) -> str:
    rows = "".join(f"| {name} | {version} | {licence(name)} |\n" for name, version in packages)
    return f"| package | version | licence |\n| --- | --- | --- |\n{rows}"


if __name__ == "__main__":
    sys.stdout.write(page())
