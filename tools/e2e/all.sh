#!/usr/bin/env bash
# The whole tier. The cluster goes whatever the tests say; EYAS_KEEP=1 keeps it for a look.
. "$(dirname "$0")/env.sh"
[ "${EYAS_KEEP:-0}" = 1 ] || trap 'began=$SECONDS; tools/e2e/down.sh; say "down: $((SECONDS - began)) s"' EXIT
make --no-print-directory e2e-up > /dev/null
began=$SECONDS
"${VENV:-.venv}/bin/python" -m pytest -v -m e2e --durations=0 tests/e2e
say "tests: $((SECONDS - began)) s, all: $SECONDS s"
