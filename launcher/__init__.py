"""Launcher of `make run`: starts and supervises Redis, the offline model, the web server and a worker.

Never imports the service, for a fast start and little memory.
"""
