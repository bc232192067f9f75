# For suites in shell: `check NAME COMMAND...` runs one test and notes its verdict in $RESULTS.
# A test is a function; it runs in a subshell under `set -e`, so any command that fails fails it.

skip() { # NAME WHY
  printf 'skipped\t%s\t%s\n' "$1" "$2" >> "$RESULTS"
  echo "-- skipped $1: $2"
}

check() {
  local name=$1 status
  shift
  echo "== $name"
  set +e
  (set -euo pipefail; "$@") 2>&1
  status=$?
  set -e
  if [ "$status" = 0 ]; then
    printf 'passed\t%s\n' "$name" >> "$RESULTS"
  else
    printf 'failed\t%s\texit status %s\n' "$name" "$status" >> "$RESULTS"
    echo "-- FAILED $name"
  fi
}
