# Sourced by demo.sh and test.sh: makes .venv beside the code, once for each change of setup.py or the pins.
# Usage: source tools/setup.sh [extras]     e.g. source tools/setup.sh dev
set -euo pipefail
ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
cd "$ROOT"
EXTRAS="${1:-}"
PYTHON="${PYTHON:-python3}"
"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "error: movies needs Python 3.11 or later; name one with PYTHON=/path/to/python3" >&2
    exit 2
}
STAMP=".venv/installed-${EXTRAS:-core}-$(cat setup.py tools/constraints.txt | cksum | cut -d' ' -f1)"
if [ ! -e "$STAMP" ]; then
    echo "Setting up .venv (once; some minutes of downloads)"
    [ -x .venv/bin/python ] || "$PYTHON" -m venv .venv
    export DS_BUILD_OPS=0 # DeepSpeed's compiled operators are for GPUs; what runs here is Python
    # torch alone and pinned first, so that no later requirement can pull another build of it
    .venv/bin/python -m pip install -q --disable-pip-version-check "$(grep '^torch==' tools/constraints.txt)"
    .venv/bin/python -m pip install -q --disable-pip-version-check -c tools/constraints.txt -e ".${EXTRAS:+[$EXTRAS]}"
    touch "$STAMP"
fi
export PATH="$ROOT/.venv/bin:$PATH"
