"""The miniature replicas of the sign-in tests serve here too."""

from tests.auth.conftest import ada, here, own_redis, replicas, there

__all__ = ["ada", "here", "own_redis", "replicas", "there"]
