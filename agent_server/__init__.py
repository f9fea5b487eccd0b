"""Program that serves agents' folders alone: no database, no Redis, no key of a model's provider."""
