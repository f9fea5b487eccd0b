#!/bin/sh
# scripts/setup.sh requirements.txt|requirements-dev.txt: makes .venv and installs into it, once per content of the file.
# A second argument is another folder than .venv. A package whose hash is not in the file is refused.
set -eu
cd "$(dirname "$0")/.."
wanted=$1
venv=${2:-.venv}
python=$venv/bin/python

fail() {
    echo "setup: $*" >&2
    exit 1
}

# The copy beside the environment is what was installed from; the development file holds everything.
installed() { cmp -s "$1" "$venv/$1" && "$python" -c "" 2>/dev/null; }
if installed "$wanted" || { [ "$wanted" = requirements.txt ] && cmp -s "$wanted" "$venv/$wanted" && installed requirements-dev.txt; }; then
    exit 0
fi

have_uv() { uv --version >/dev/null 2>&1; }

make_venv() {
    command -v python3 >/dev/null || fail "Python 3.11 or newer is needed; no python3 was found (Debian: apt install python3 python3-venv)"
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "Python 3.11 or newer is needed; python3 is $(python3 -c 'import platform; print(platform.python_version())')"
    echo "setup: making $venv"
    if have_uv; then
        uv venv --quiet --clear --python "$(python3 -c 'import sys; print(sys.executable)')" "$venv"
    else
        python3 -c 'import ensurepip, venv' 2>/dev/null ||
            fail "python3 cannot make virtual environments (Debian: apt install python3-venv)"
        python3 -m venv --clear "$venv"
    fi
}

"$python" -c "" 2>/dev/null || make_venv
echo "setup: installing $wanted"
if have_uv; then
    uv pip install --quiet --compile-bytecode --python "$python" --require-hashes -r "$wanted"
else
    "$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >/dev/null
    "$python" -m pip install --quiet --disable-pip-version-check --require-hashes -r "$wanted"
fi
cp "$wanted" "$venv/$wanted"
if [ "$wanted" = requirements-dev.txt ]; then cp requirements.txt "$venv/requirements.txt"; fi
