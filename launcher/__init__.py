"""Launcher of `make run`: starts and supervises Redis, the offline model, the web server and a worker.

Imports the service only for its programs to be forked with it: together they take the memory of one.
"""
