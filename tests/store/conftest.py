from tests.usage.conftest import postgres_url, url

__all__ = ["postgres_url", "url"]
