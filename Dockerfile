# Two stages: what builds stays behind. `docker build -t slipway .`, then docs/deploy.md.
# The pipeline names a digest, `python:3.12-slim@sha256:…`, so that a build tells what it was made of.
ARG PYTHON_IMAGE=python:3.12-slim

FROM ${PYTHON_IMAGE} AS builder

WORKDIR /app
COPY requirements.txt requirements-providers.txt ./
# `--build-arg PROVIDERS=yes` for Bedrock and Vertex AI: about 40 MB more.
ARG PROVIDERS=no
RUN python -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements.txt \
    && if [ "$PROVIDERS" = yes ]; then \
        pip --python /opt/venv/bin/python install --no-cache-dir --disable-pip-version-check --require-hashes -r requirements-providers.txt; \
    fi
COPY . .
# Bytecode now, because at run time the code is read-only; readable whatever the umask of the checkout was.
RUN /opt/venv/bin/python -m compileall -q . \
    && chmod -R a+rX,go-w .


FROM ${PYTHON_IMAGE}

# The pipeline adds source, revision, time and base image, which differ by build (scripts/build_image.sh).
LABEL org.opencontainers.image.title="Slipway" \
      org.opencontainers.image.description="Puts Claude agents behind an API a business can depend on" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="0.1.0"

RUN groupadd --gid 10001 slipway \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /var/lib/slipway --shell /usr/sbin/nologin slipway \
    && install -d -o slipway -g slipway -m 0700 /var/lib/slipway \
    && python -B -m pip uninstall --yes --quiet --root-user-action=ignore pip

COPY --from=builder /opt/venv /opt/venv
COPY --from=builder /app /app

ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    APP_ENV=production \
    HOST=0.0.0.0 \
    PORT=8000 \
    SLIPWAY_HOME=/var/lib/slipway

WORKDIR /app
USER 10001:10001
EXPOSE 8000
STOPSIGNAL SIGTERM

# The time is for a machine that is busy: starting Python alone may take seconds there.
HEALTHCHECK --interval=5s --timeout=10s --start-period=60s --retries=3 \
    CMD ["python", "-S", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=5)"]

CMD ["gunicorn", "-c", "gunicorn.conf.py", "wsgi:app"]
