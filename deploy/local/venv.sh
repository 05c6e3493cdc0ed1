#!/bin/sh
# Makes .venv with the given Python and the pinned packages of requirements-dev.txt, or brings it up to date.
# .venv/ready is made last, so that an interrupted run starts over. Run from the checkout: sh deploy/local/venv.sh python3
set -eu
python=$1

if ! command -v "$python" >/dev/null 2>&1; then
    echo "$python was not found. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.12" >&2
    exit 2
fi
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "$python is Python $version and 3.11 or newer is needed. Name another: make PYTHON=/path/to/python3.12" >&2
    exit 2
fi

if ! .venv/bin/python -c 'import sys; sys.exit("%d.%d" % sys.version_info[:2] != sys.argv[1])' "$version" 2>/dev/null; then
    echo "Making .venv with Python $version …"
    # Without pip: Debian's Python cannot put it there unless python3-venv is installed.
    "$python" -m venv --clear --without-pip .venv
fi

if .venv/bin/python -m pip --version >/dev/null 2>&1; then
    :
elif "$python" -m ensurepip --version >/dev/null 2>&1; then
    .venv/bin/python -m ensurepip >/dev/null
else
    echo "This Python has no ensurepip: unpacking Debian's pip into .local/pip …"
    "$python" -m deploy.local.debian_packages .local/pip python3-pip-whl python3-setuptools-whl || {
        echo "Install venv for your Python (Debian: apt-get install python3-venv) and try again." >&2
        exit 2
    }
    .venv/bin/python "$(echo .local/pip/usr/share/python-wheels/pip-*.whl)/pip" install --quiet --no-index \
        --find-links .local/pip/usr/share/python-wheels pip setuptools
fi

echo "Installing the packages of requirements-dev.txt into .venv …"
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r requirements-dev.txt
touch .venv/ready
