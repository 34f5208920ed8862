#!/usr/bin/env bash
# Sets everything up and runs every check: lint, format, tests.   bash tools/test.sh [pytest arguments]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev
ruff check .
ruff format --check .
# Threads of a waiting OpenMP team spin and starve their neighbours on small machines; passive ones sleep.
export OMP_WAIT_POLICY=PASSIVE
exec python -m pytest "$@"
