"""Define the settings of what answers elsewhere: remote agents, MCP servers, and the way back to this service."""

from __future__ import annotations

from pydantic import Field, SecretStr

from config.providers import Providers


class Elsewhere(Providers):
    """Fields of `config.base.Settings`."""

    remote_agents: str = Field(
        "",
        description="Agents of AGENTS_DIR that run elsewhere, by `python -m agent_server`: names with addresses, as "
        "`research=http://research:9100/research`, separated by commas; see docs/multi-agent.md; empty: none",
    )
    mcp_servers: str = Field(
        "",
        description="File of the MCP servers whose tools agents may list; empty: `mcp.yaml` beside `AGENTS_DIR`, if it "
        "is there",
    )
    mail_port: int = Field(
        9201,
        ge=0,
        le=65535,
        description="Port of the bundled mail server; `make run` selects a free one if it is in use",
    )
    calendar_port: int = Field(
        9202,
        ge=0,
        le=65535,
        description="Port of the bundled calendar server; `make run` selects a free one if it is in use",
    )
    remote_hosts: str = Field(
        "",
        description="Hosts that remote agents may be at, such as `research:9100` or `agents.example.com`: they get "
        "conversations and tokens of runs; separated by commas; empty: none",
    )
    remote_credentials: SecretStr = Field(
        SecretStr(""),
        description="Tokens that remote agents are asked with, by host: `research:9100=token`, separated by commas",
    )
    gateway_url: str = Field(
        "",
        description="Address at which remote agents reach `/v1/messages`, such as `http://nginx:8080`; empty: this "
        "process, on 127.0.0.1",
    )
