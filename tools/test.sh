#!/usr/bin/env bash
# Sets everything up and runs every check: lint, format, tests.   bash tools/test.sh [pytest arguments]
source "$(dirname "${BASH_SOURCE[0]}")/setup.sh" dev
# The exported page is tested in Chromium. Without it those tests skip and say so; as root it is a line away.
if ! command -v chromium chromium-browser google-chrome >/dev/null && [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing Chromium for the tests of the exported page"
    export DEBIAN_FRONTEND=noninteractive
    (timeout 100 apt-get -qq update && timeout 500 apt-get -qq install -y --no-install-recommends chromium) \
        </dev/null >/dev/null 2>&1 || echo "Chromium cannot be installed here; its tests will skip"
fi
ruff check .
ruff format --check .
# Threads of a waiting OpenMP team spin and starve their neighbours on small machines; passive ones sleep.
export OMP_WAIT_POLICY=PASSIVE
exec python -m pytest "$@"
