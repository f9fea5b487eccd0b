"""Settings of the models' providers."""

from __future__ import annotations

import importlib.util

import pytest

from config import ConfigError, load
from config.providers import PROVIDERS
from service.llm import build
from tests.config.serving import serving

BOTH = {
    "MODEL_PROVIDERS": "bedrock, vertex",
    "AWS_REGION": "us-east-1",
    "CLOUD_ML_REGION": "global",
    "ANTHROPIC_VERTEX_PROJECT_ID": "acme",
}


def test_providers_are_those_that_are_built() -> None:
    assert set(build.PROVIDERS) == set(PROVIDERS)


def test_order_is_kept() -> None:
    assert load(BOTH).providers == ("bedrock", "vertex") and load({}).providers == ("anthropic",)


def test_production_without_the_api_needs_no_key_of_it() -> None:
    assert not load(serving("production", ANTHROPIC_API_KEY="", **BOTH)).offline


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("MODEL_PROVIDERS", "openai"),
        ("MODEL_PROVIDERS", "anthropic,anthropic"),
        ("MODEL_PROVIDERS", "anthropic,"),
        ("AWS_REGION", "us east"),
        ("BEDROCK_MODELS", "claude-haiku-5-5"),
        ("BEDROCK_MODELS", "claude-haiku-5-5=a b"),
        ("VERTEX_MODELS", "gpt=claude"),
        ("OPENAI_BASE_URL", "api.example.com"),
    ],
)
def test_faults_name_the_setting_and_not_the_value(setting: str, value: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load({**BOTH, setting: value})
    assert setting in raised.value.faults and f"'{value}'" not in str(raised.value)


@pytest.mark.parametrize(
    ("provider", "missing"), [("bedrock", "AWS_REGION"), ("vertex", "ANTHROPIC_VERTEX_PROJECT_ID")]
)
def test_provider_without_its_settings_is_refused(provider: str, missing: str) -> None:
    environ = {name: value for name, value in BOTH.items() if name != missing}
    with pytest.raises(ConfigError, match=f"which needs {missing}"):
        load({**environ, "MODEL_PROVIDERS": provider})


def test_provider_without_its_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("config.providers.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"pip install -r requirements-providers\.txt"):
        load(BOTH)
    assert importlib.util.find_spec("boto3")


def test_ids_of_models_are_read() -> None:
    made = load(
        {"BEDROCK_MODELS": "claude-haiku-5-5=global.anthropic.claude-haiku-5-5-v1:0, claude-opus-5=x"}
    )
    assert made.bedrock_ids == {
        "claude-haiku-5-5": "global.anthropic.claude-haiku-5-5-v1:0",
        "claude-opus-5": "x",
    }


def test_a_key_of_openai_is_enough_for_its_own_address() -> None:
    assert load({}).openai_url == ""
    assert load({"OPENAI_API_KEY": "sk-test"}).openai_url == "https://api.openai.com/v1"
    assert load({"OPENAI_BASE_URL": "http://vllm:8000/v1/"}).openai_url == "http://vllm:8000/v1"
