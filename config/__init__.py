"""Settings: read once at start, by `load`, and passed in from there. Nothing else reads the environment."""

from __future__ import annotations

import os
from collections.abc import Mapping

from pydantic import ValidationError

from config.base import Settings
from config.development import Development
from config.production import Production
from config.staging import Staging
from config.testing import Testing

__all__ = ["ENVIRONMENTS", "ConfigError", "Settings", "load"]

ENVIRONMENTS: Mapping[str, type[Settings]] = {
    cls.environment: cls for cls in (Development, Testing, Staging, Production)
}


class ConfigError(Exception):
    """Every fault at once, one line each: the setting's name and what is wrong, never a value."""

    def __init__(self, environment: str, faults: Mapping[str, str]) -> None:
        self.faults = dict(faults)
        count = "1 setting is" if len(faults) == 1 else f"{len(faults)} settings are"
        lines = [f"  {name}: {fault}" for name, fault in faults.items()]
        super().__init__("\n".join([f"Slipway cannot start: {count} wrong (APP_ENV={environment}).", *lines]))


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of the environment that APP_ENV names (`development` when empty).

    Each setting comes from `NAME` or from the file that `NAME_FILE` names; empty counts as not set.
    Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    faults: dict[str, str] = {}
    chosen = _read("APP_ENV", environ, faults) or Development.environment
    cls = ENVIRONMENTS.get(chosen, Settings)
    if chosen not in ENVIRONMENTS:
        faults.setdefault("APP_ENV", f"is not one of {', '.join(ENVIRONMENTS)}")
    values = {name: _read(name.upper(), environ, faults) for name in cls.model_fields}
    try:
        settings = cls.model_validate({name: text for name, text in values.items() if text})
    except ValidationError as error:
        # A file that could not be read is told as that, not as the rule that its absence breaks.
        faults = {**_faults_of(error), **faults}
    if faults:
        raise ConfigError(chosen, faults)
    return settings


def _read(name: str, environ: Mapping[str, str], faults: dict[str, str]) -> str:
    value, path = environ.get(name, ""), environ.get(f"{name}_FILE", "")
    if value and path:
        faults[name] = f"is set twice, as {name} and as {name}_FILE"
    if not path:
        return value
    try:
        with open(path, encoding="utf-8") as file:
            return file.read().rstrip("\r\n")
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8"
        faults[name] = f"cannot be read from {name}_FILE ({path}): {reason}"
        return ""


def _faults_of(error: ValidationError) -> dict[str, str]:
    """Pydantic's words, without its prefix and without the value it was given."""
    return {
        str(fault["loc"][0]).upper(): fault["msg"].removeprefix("Value error, ")
        for fault in error.errors(include_url=False, include_input=False, include_context=False)
    }
