#!/usr/bin/env bash
# The whole tier: tests that mind their own jobs two at a time, then those that disturb a node or the operator. The
# cluster goes whatever the tests say; EYAS_KEEP=1 keeps it for a look.
. "$(dirname "$0")/env.sh"
[ "${EYAS_KEEP:-0}" = 1 ] || trap 'began=$SECONDS; tools/e2e/down.sh; say "down: $((SECONDS - began)) s"' EXIT
make --no-print-directory e2e-up > /dev/null
failed=0
tests() {  # NAME ARGUMENT...
  local name=$1 began=$SECONDS; shift
  "${VENV:-.venv}/bin/python" -m pytest -v --durations=0 --durations-min=1 tests/e2e "$@" || failed=1
  say "tests, $name: $((SECONDS - began)) s"
}
tests "side by side" -m 'e2e and not exclusive' -n 2 --dist loadfile
tests "one by one" -m 'e2e and exclusive'
say "all: $SECONDS s"
exit $failed
