#!/bin/sh
# Installs each peer into benchmarks/peers/.venvs/<name>, once per content of its requirements.txt.
# One that cannot be installed is told of; the others are still measured.
set -u
cd "$(dirname "$0")"
for peer in fastapi_app litellm_proxy agno_os; do
    venv=.venvs/$peer
    if cmp -s "$peer/requirements.txt" "$venv/requirements.txt"; then continue; fi
    echo "installing $peer"
    if [ ! -x "$venv/bin/python" ]; then python3 -m venv "$venv" || continue; fi
    if "$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$peer/requirements.txt"; then
        cp "$peer/requirements.txt" "$venv/requirements.txt"
    else
        echo "$peer could not be installed; it will be left out" >&2
    fi
done
