"""Define the settings that keep costs down: the answer cache, and caps."""

from __future__ import annotations

from pydantic import Field, SecretStr

from config.knowledge import Knowledge


class Saving(Knowledge):
    """Fields of `config.base.Settings` about the answer cache and caps."""

    cache_enabled: bool = Field(True, description="Answer cache and single flight; off: `X-Cache: bypass`")
    cache_ttl_seconds: int = Field(
        3600,
        ge=1,
        description="Longest life of a cached answer; a shorter `cache.ttl_seconds` of an agent takes precedence",
    )
    near_stop_phrases: str = Field(
        "hi, hello, hey, hi there, good morning, good afternoon, good evening, please, could you tell me, "
        "can you tell me, could you please tell me, can you please tell me, tell me, i would like to know, "
        "i'd like to know, i want to know, thanks, thank you, thanks in advance",
        description="Courtesies that are ignored apart from a question, separated by commas",
    )
    semantic_cache_url: str = Field(
        "",
        repr=False,
        description="Endpoint of OpenAI's embeddings API, such as `https://host/v1/embeddings`; "
        "when set, questions of the same meaning share an answer",
    )
    semantic_cache_key: SecretStr = Field(SecretStr(""), description="Key of that endpoint, if it needs one")
    semantic_cache_model: str = Field(
        "text-embedding-3-small",
        min_length=1,
        max_length=128,
        description="Embedding model; it needs a price, see docs/caching.md",
    )
    semantic_cache_threshold: float = Field(
        0.95, ge=0.5, le=1, description="Smallest cosine of two questions of the same meaning"
    )

    # caps
    budget_user_day_usd: str = Field(
        "100.00",
        description="Daily cap (UTC) in dollars of each user without their own cap; empty: no cap",
    )
    budget_workspace_day_usd: str = Field(
        "", description="Daily cap (UTC) in dollars of each workspace without its own cap; empty: no cap"
    )
    budget_service_day_usd: str = Field(
        "1000.00", description="Daily cap (UTC) in dollars of the whole service; empty: no cap"
    )
    budget_run_usd: str = Field(
        "", description="Cap in dollars of one run; empty: as much as the other caps allow"
    )
    budget_webhook_url: str = Field(
        "",
        repr=False,
        description="URL for signed warnings at 50, 80 and 100 percent of a cap; empty: none",
    )
