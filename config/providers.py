"""Define the settings of the models' providers: Claude at four of them, and an upstream in OpenAI's dialect."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from pydantic import Field, SecretStr, ValidationInfo, field_validator

from config import checks
from config.identity import Identity

PROVIDERS = ("anthropic", "bedrock", "mantle", "vertex")
PACKAGES = {"bedrock": "boto3", "mantle": "boto3", "vertex": "google.auth"}  # of requirements-providers.txt
NEEDED = {
    "bedrock": ("aws_region",),
    "mantle": ("aws_region",),
    "vertex": ("cloud_ml_region", "anthropic_vertex_project_id"),
}
_ID = re.compile(r"(claude-[a-z0-9.-]{1,100})=([A-Za-z0-9._:/@-]{1,256})")
_PLACE = re.compile(r"[A-Za-z0-9-]{0,100}")


class Providers(Identity):
    """Fields of `config.base.Settings`, and their validators."""

    aws_region: str = Field("", description="Region of Bedrock and Bedrock Mantle, such as `us-east-1`")
    anthropic_bedrock_base_url: str = Field(
        "", repr=False, description="Address of `bedrock-runtime`; empty: that of AWS_REGION"
    )
    bedrock_models: str = Field(
        "",
        description="Bedrock's ids of models, such as `claude-haiku-5-5=global.anthropic.claude-haiku-5-5`, separated "
        "by commas; any other is `anthropic.` and its name",
    )
    anthropic_bedrock_mantle_base_url: str = Field(
        "",
        repr=False,
        description="Address of `bedrock-mantle`, with its `/anthropic`; empty: that of AWS_REGION",
    )
    mantle_models: str = Field(
        "",
        description="Bedrock Mantle's ids of models, such as `claude-haiku-5-5=anthropic.claude-haiku-5-5`, separated "
        "by commas; any other is `anthropic.` and its name",
    )
    cloud_ml_region: str = Field("", description="Region of Vertex AI, such as `europe-west1` or `global`")
    anthropic_vertex_project_id: str = Field("", description="Google Cloud project of Vertex AI")
    anthropic_vertex_base_url: str = Field(
        "", repr=False, description="Address of Vertex AI, with its `/v1`; empty: that of CLOUD_ML_REGION"
    )
    vertex_models: str = Field(
        "",
        description="Vertex AI's ids of models, such as `claude-haiku-4-5=claude-haiku-4-5@20251001`, separated by "
        "commas; any other is its name",
    )
    model_providers: str = Field(
        "anthropic",
        description="Providers of Claude, separated by commas: `anthropic`, `bedrock`, `mantle`, `vertex`. The first "
        "answers; the next takes the calls of one that is away; see docs/providers.md",
    )
    openai_api_key: SecretStr = Field(
        SecretStr(""), description="Key of an upstream in OpenAI's dialect, if it needs one"
    )
    openai_base_url: str = Field(
        "",
        repr=False,
        description="Address of an upstream in OpenAI's dialect, with its `/v1`; empty: OpenAI's own where there is a "
        "key, else none",
    )
    model_prices: str = Field(
        "",
        description="File of further prices, in the form of service/usage/prices.yaml: of models of your own, or of "
        "later days; empty: none",
    )

    @property
    def providers(self) -> tuple[str, ...]:
        return tuple(self.model_providers.split(","))

    @property
    def bedrock_ids(self) -> Mapping[str, str]:
        return _ids(self.bedrock_models)

    @property
    def mantle_ids(self) -> Mapping[str, str]:
        return _ids(self.mantle_models)

    @property
    def vertex_ids(self) -> Mapping[str, str]:
        return _ids(self.vertex_models)

    @property
    def openai_url(self) -> str:
        """Return the base URL of the upstream in OpenAI's dialect; empty: there is none."""
        own = "https://api.openai.com/v1" if self.openai_api_key.get_secret_value() else ""
        return self.openai_base_url or own

    @field_validator("bedrock_models", "mantle_models", "vertex_models")
    @classmethod
    def _model_ids(cls, text: str) -> str:
        _ids(text)
        return text

    @field_validator("aws_region", "cloud_ml_region", "anthropic_vertex_project_id")
    @classmethod
    def _name(cls, text: str) -> str:
        if not _PLACE.fullmatch(text):
            raise ValueError("is no name of a region or project")
        return text

    @field_validator(
        "anthropic_bedrock_base_url",
        "anthropic_bedrock_mantle_base_url",
        "anthropic_vertex_base_url",
        "openai_base_url",
    )
    @classmethod
    def _address(cls, url: str) -> str:
        return checks.http_url(url).rstrip("/")

    @field_validator("model_prices")
    @classmethod
    def _prices(cls, path: str) -> str:
        if path and not Path(path).is_file():
            raise ValueError("is no file")
        return path

    @field_validator("openai_api_key")
    @classmethod
    def _openai_key(cls, key: SecretStr) -> SecretStr:
        return checks.header(key)

    @field_validator("model_providers")
    @classmethod
    def _known_providers(cls, text: str, info: ValidationInfo) -> str:
        names = [name.strip() for name in text.split(",")]
        if len(set(names)) < len(names) or not set(names) <= set(PROVIDERS):
            raise ValueError(f"must name each of {', '.join(PROVIDERS)} at most once, separated by commas")
        for name in names:
            _check_complete(name, info.data)
        return ",".join(names)


def _check_complete(provider: str, others: Mapping[str, Any]) -> None:
    """Check that a provider has its settings and its package."""
    for needed in NEEDED.get(provider, ()):
        if others.get(needed) == "":  # None: it has a fault of its own
            raise ValueError(f"names {provider}, which needs {needed.upper()}")
    package = PACKAGES.get(provider)
    if package and not _is_installed(package):
        raise ValueError(
            f"names {provider}, which needs the package {package}: pip install -r requirements-providers.txt"
        )


def _is_installed(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ModuleNotFoundError:
        return False


def _ids(text: str) -> Mapping[str, str]:
    """Parse names of models with their ids at a provider. Raises `ValueError`."""
    pairs = [_ID.fullmatch(pair.strip()) for pair in text.split(",") if pair.strip()]
    if None in pairs:
        raise ValueError("is no list of models and ids, such as claude-haiku-5-5=anthropic.claude-haiku-5-5")
    return MappingProxyType({pair[1]: pair[2] for pair in pairs if pair})
