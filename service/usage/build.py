"""Build the usage services: prices, budgets, spending, rate limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from service.infra.backends import Infra
from service.usage.budget_warnings import Notify
from service.usage.budgets import Budgets
from service.usage.caps import nano_of
from service.usage.prices import PriceTable
from service.usage.rate_limits import RateLimits
from service.usage.reservation import Spending
from service.usage.savings import Savings

if TYPE_CHECKING:
    from config.base import Settings


@dataclass(frozen=True, slots=True)
class UsageServices:
    prices: PriceTable
    budgets: Budgets
    spending: Spending
    impatient: Spending  # of embeddings, which wait for no room
    rate_limits: RateLimits
    savings: Savings


def build(
    settings: Settings,
    infra: Infra,
    prices: PriceTable,
    *,
    notify: Notify,
    has_agent: Callable[[str], bool],
) -> UsageServices:
    """Build the usage services.

    `notify` receives budget warnings; `has_agent` returns whether an agent of that name exists: only then a
    cap can be set on it.
    """
    budgets = Budgets(
        infra.db,
        infra.observer,
        day={
            "user": _nano(settings.budget_user_day_usd),
            "workspace": _nano(settings.budget_workspace_day_usd),
            "service": _nano(settings.budget_service_day_usd),
        },
        notify=notify,
        has_agent=has_agent,
    )
    rate_limits = RateLimits.of(infra.redis_store, tokens=settings.limit_tokens, tool=settings.limit_tool)
    run_most = _nano(settings.budget_run_usd)
    spending = Spending(infra.db, budgets, infra.observer, run_most=run_most, used=rate_limits.used)
    impatient = Spending(infra.db, budgets, infra.observer, run_most=run_most, patience=0)
    return UsageServices(
        prices, budgets, spending, impatient, rate_limits, Savings(infra.db, infra.metrics.saved)
    )


def _nano(amount_usd: str) -> int | None:
    return nano_of(amount_usd) if amount_usd else None
