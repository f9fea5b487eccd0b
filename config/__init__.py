"""Settings, loaded once at start by `load` and passed in. Nothing else reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from pydantic import SecretStr, ValidationError

from config import env_file, secrets
from config.base import Settings, is_limit
from config.describe import choices, type_of
from config.development import Development
from config.production import Production
from config.spelling import misspelt, suggestion
from config.staging import Staging
from config.testing import Testing

__all__ = ["ENVIRONMENTS", "ConfigError", "Settings", "load"]

ENVIRONMENTS: Mapping[str, type[Settings]] = {
    cls.environment: cls for cls in (Development, Testing, Staging, Production)
}


class ConfigError(Exception):
    """Invalid settings: all faults at once, one line each, with the setting's name but never its value."""

    def __init__(self, environment: str, faults: Mapping[str, str]) -> None:
        self.faults = dict(faults)
        count = "1 setting is" if len(faults) == 1 else f"{len(faults)} settings are"
        lines = [f"  {name}: {fault}" for name, fault in faults.items()]
        super().__init__("\n".join([f"Slipway cannot start: {count} wrong (APP_ENV={environment}).", *lines]))


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """Load the settings for APP_ENV (`development` when empty). Raises ConfigError.

    A value comes from `NAME`, or from the file named by `NAME_FILE`, in `environ`: by default the process environment
    merged over `.env`. Empty means unset, except for limits and budgets, where empty means none.
    """
    faults: dict[str, str] = {}
    if environ is None:
        environ = env_file.merge(os.environ, faults)
    chosen = (_read("APP_ENV", environ, faults, private=False) or Development.environment).strip()
    cls = ENVIRONMENTS.get(chosen, Settings)
    if chosen not in ENVIRONMENTS:
        fault = f"is not one of {', '.join(ENVIRONMENTS)}{suggestion(chosen, ENVIRONMENTS)}"
        faults.setdefault("APP_ENV", fault)
    values = _values(cls, environ, faults)
    try:
        settings = cls.model_validate(values)
    except ValidationError as error:
        # An unreadable file is reported as such, not as the rule that its absence breaks.
        faults = {**_faults_of(error, values), **faults}
    faults |= misspelt(environ, ["APP_ENV", *map(str.upper, Settings.model_fields)])
    if faults:
        raise ConfigError(chosen, faults)
    return settings


def _values(cls: type[Settings], environ: Mapping[str, str], faults: dict[str, str]) -> dict[str, str]:
    """Read the values that are set, by field name, stripped of surrounding space except for secrets."""
    values = {}
    for name, field in cls.model_fields.items():
        text = _read(name.upper(), environ, faults, private=secrets.is_secret(field))
        if text is not None and field.annotation is not SecretStr:
            text = text.strip()
        if text or (text is not None and is_limit(name)):
            values[name] = text
    return values


def _read(name: str, environ: Mapping[str, str], faults: dict[str, str], *, private: bool) -> str | None:
    """Read a setting from its variable or file; None: not set, or unreadable."""
    value, path = environ.get(name), environ.get(f"{name}_FILE")
    if value and path:
        faults[name] = f"is set twice, as {name} and as {name}_FILE"
    if not path:
        return value
    try:
        with open(path, encoding="utf-8-sig") as file:
            text = file.read()
            if private and text and secrets.others_can_read(file):
                faults.setdefault(name, f"can be read by every user of this machine in {path} (chmod 600)")
            return text.rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        faults[name] = f"cannot be read from {name}_FILE ({path}): {reason}"
        return None


def _faults_of(error: ValidationError, values: Mapping[str, str]) -> dict[str, str]:
    """Translate pydantic's errors: a check's own message, or the expected type."""
    return {
        str(fault["loc"][0]).upper(): _words(fault, values)
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    }


def _words(fault: Any, values: Mapping[str, str]) -> str:
    name = str(fault["loc"][0])
    if fault["type"] == "value_error":
        return str(fault["msg"]).removeprefix("Value error, ")
    field = Settings.model_fields[name]
    kind = type_of(field)
    article = "a " if kind.startswith(("whole", "number")) else ""
    return f"must be {article}{kind}{suggestion(values.get(name, ''), choices(field))}"
