#!/bin/sh
# Removes what the make targets have made: .venv, .local, caches, static files, and this checkout's folder in /var/tmp.
set -eu
if [ -e .local/demo.lock ] && command -v flock >/dev/null && ! flock --nonblock .local/demo.lock true; then
    echo "A demo is up in this checkout: end it first with Ctrl-C in its terminal." >&2
    exit 1
fi
for python in .venv/bin/python python3; do
    if place=$($python -c 'from deploy.local.private_place import private_place; print(private_place())' 2>/dev/null); then
        rm -rf -- "$place"
        break
    fi
done
rm -rf .venv .local staticfiles .mypy_cache .pytest_cache .ruff_cache .hypothesis
find . -name __pycache__ -type d -not -path './.git/*' -exec rm -rf {} +
