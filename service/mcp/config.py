"""Configuration of MCP servers: a YAML file of the operator's, with the tools of each server that agents may list."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Literal, NamedTuple, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, TypeAdapter, model_validator

from service.agents.marked_yaml import MarkedYaml, YamlFault, YamlFaults
from service.agents.spec import Spec
from service.tools.base import Risk

MAX_BYTES = 256 * 1024  # of the file
MAX_SERVERS, MAX_TOOLS = 32, 64
CREDENTIAL_ENV = "MCP_CREDENTIAL"
_SERVER = re.compile(r"[a-z][a-z0-9-]{0,30}")
# Towards the model a dot is `__`, so neither `__` nor `_.` may be in a name.
_TOOL = re.compile(r"(?!.*(__|_\.))[a-zA-Z0-9][a-zA-Z0-9_.-]{0,63}")
_ENV = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")


def _env_name(text: str) -> str:
    if not _ENV.fullmatch(text):
        raise ValueError("must be the name of an environment variable, such as MAIL_URL")
    return text


EnvName = Annotated[str, AfterValidator(_env_name)]
Text = Annotated[str, Field(min_length=1, max_length=4096)]


class ToolRule(Spec):
    """Tool that agents may list. The risk is the operator's word: annotations of a server are not read."""

    risk: Risk = Field(description="`read`, `write`, or `danger`: then a person approves each call")
    idempotent: bool | None = Field(
        None, description="A call that may have happened can be repeated; by default one of risk `read`"
    )
    sends: bool = Field(
        True, description="Arguments leave your house: after untrusted text a person approves"
    )
    timeout_seconds: float = Field(30, gt=0, le=300, description="Longest wait for a result")

    @property
    def repeatable(self) -> bool:
        """Return whether a call that may have happened can be repeated without a person."""
        return self.risk == "read" if self.idempotent is None else self.idempotent


class ServerSpec(Spec):
    """Server, reached over streamable HTTP (`url` or `url_env`) or started by each process (`command`)."""

    url: Text | None = Field(None, description="Address of a streamable HTTP server")
    url_env: EnvName | None = Field(
        None, description="Environment variable with that address; `url` applies without it"
    )
    command: tuple[Text, ...] = Field(
        (), max_length=64, description="Program and arguments of a stdio server"
    )
    env: dict[EnvName, str] = Field(
        {}, max_length=64, description="Environment of the program, without secrets"
    )
    credentials: Literal["none", "service", "user"] = Field(
        "none", description="One credential for all, or one per user"
    )
    credential_env: EnvName = Field(
        CREDENTIAL_ENV, description="Variable of the program that holds the credential"
    )
    tools: dict[str, ToolRule] = Field(
        min_length=1, max_length=MAX_TOOLS, description="Tools that may be used"
    )

    @property
    def address(self) -> str:
        """Return the URL; empty for a stdio server."""
        return (self.url_env and os.environ.get(self.url_env)) or self.url or ""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if bool(self.command) == bool(self.url or self.url_env):
            raise ValueError("needs either `url` (or `url_env`) or `command`")
        if self.url_env and not self.address:
            raise ValueError(f"needs `url`, as {self.url_env} is not set")
        if self.env and not self.command:
            raise ValueError("`env` is only for a server with a `command`")
        parts = urlsplit(self.address)
        if self.address and (parts.scheme not in ("http", "https") or not parts.hostname):
            raise ValueError("the address must begin with http:// or https:// and name a host")
        if parts.username or parts.password:
            raise ValueError("the address must hold no credential: `flask mcp credential set` keeps it")
        return self


class Servers(Spec):
    servers: dict[str, ServerSpec] = Field({}, max_length=MAX_SERVERS, description="Servers by name")


_SHAPE = TypeAdapter(Servers)


class McpConfig(NamedTuple):
    """Servers by name; none of them where `faults` says why the file cannot be used."""

    file: Path
    servers: Mapping[str, ServerSpec] = MappingProxyType({})
    faults: tuple[YamlFault, ...] = ()


def load(file: Path) -> McpConfig:
    """Read the file; without one there are no servers. Never raises."""
    try:
        with file.open("rb") as opened:
            data = opened.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return McpConfig(file, faults=(YamlFault(0, "", f"is longer than {MAX_BYTES:,} bytes"),))
        document = MarkedYaml(data.decode("utf-8-sig"))
        servers = document.read(_SHAPE).servers
        _check_names(document, servers)
    except FileNotFoundError:
        return McpConfig(file)
    except OSError as error:
        return McpConfig(file, faults=(YamlFault(0, "", f"cannot be read: {error.strerror}"),))
    except UnicodeDecodeError:
        return McpConfig(file, faults=(YamlFault(0, "", "is not UTF-8: save it in that encoding"),))
    except YamlFaults as error:
        return McpConfig(file, faults=error.faults)
    return McpConfig(file, MappingProxyType(servers))


def _check_names(document: MarkedYaml, servers: Mapping[str, ServerSpec]) -> None:
    """Raise `YamlFaults` for names that no model can be given."""
    faults = []
    for server, spec in servers.items():
        if not _SERVER.fullmatch(server):
            detail = "a server's name has only small letters, digits and -, begins with a letter, at most 31"
            faults.append(document.fault(("servers", server), detail))
        for tool in spec.tools:
            if not _TOOL.fullmatch(tool) or len(server) + 2 + len(tool.replace(".", "__")) > 64:
                detail = (
                    "a tool's name has only letters, digits, _, - and ., no two underscores in a row "
                    "and none before a dot; with its server's name at most 64 characters"
                )
                faults.append(document.fault(("servers", server, "tools", tool), detail))
    if faults:
        raise YamlFaults(faults)
