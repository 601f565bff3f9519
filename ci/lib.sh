# Shared by the scripts of this directory: where things are, and how a skip is said.
# shellcheck shell=bash
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cd "$root"
target=${CARGO_TARGET_DIR:-$root/target}
# Tools that a script had to build for itself; never installed into the system.
tools=$root/build/tools
[ ! -x "$tools/go/bin/go" ] || PATH=$tools/go/bin:$PATH
export PATH="$PATH:$tools/bin:/usr/local/go/bin:${HOME:-/root}/.cargo/bin"

have() { command -v "$1" >/dev/null 2>&1; }

# A suite that cannot run says so. With CI=true nothing may be left out, so there it is a failure.
skip() {
    if [ "${CI:-}" = true ]; then
        echo "FAILED: $* (a skip is a failure with CI=true)"
        exit 1
    fi
    echo "skipped: $*"
    exit 0
}
