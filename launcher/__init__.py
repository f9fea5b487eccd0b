"""What `make run` starts: Redis, the offline model, the web server and a worker, looked after as one.

It never imports the service, so that it is there at once and its memory stays small.
"""
