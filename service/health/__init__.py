"""Health of the whole service, for those who run it: processes, traffic, queues, breakers, and what is degraded."""
