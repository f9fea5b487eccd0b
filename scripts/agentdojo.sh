#!/bin/sh
# Installs AgentDojo into .venv-agentdojo, once per content of its requirements.txt: its packages do not fit Slipway's.
set -eu
cd "$(dirname "$0")/.."
wanted=tests/agentdojo/requirements.txt
venv=.venv-agentdojo
if cmp -s "$wanted" "$venv/requirements.txt"; then exit 0; fi
echo "installing AgentDojo"
if [ ! -x "$venv/bin/python" ]; then python3 -m venv "$venv"; fi
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check -r "$wanted"
cp "$wanted" "$venv/requirements.txt"
