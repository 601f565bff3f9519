# Cases that run processes of ours and of other people, one line a case. Sourced after lib.sh by the scripts that hold cases; a
# case is a function that runs with set -e in a subshell and a directory of its own.
# shellcheck shell=bash

exec 3>&1
bin=${CASTKEEP_BIN:-}
if [ -z "$bin" ]; then
    cargo build --quiet --locked
    bin=$target/debug/castkeep
fi

work=$(mktemp -d "${TMPDIR:-/tmp}/castkeep-cases.XXXXXX")

# shellcheck disable=SC2317
cleanup() {
    if [ "$failed" = 0 ]; then rm -rf "$work"; else echo "what the cases left is in $work"; fi
}
failed=0
trap cleanup EXIT

fail() { echo "      $*" >&3; return 1; }

# Waits for a line that names an address, and sets `addr`.
await_addr() { # LOG PID
    local n
    for n in $(seq 200); do
        addr=$(grep -oE '127\.0\.0\.1:[1-9][0-9]*' "$1" | head -n 1) && return
        kill -0 "$2" 2>/dev/null || { fail "ended at once: $(tail -n 3 "$1")"; return 1; }
        sleep 0.05
    done
    fail "does not say what it listens on: $(head -n 5 "$1")"
}
serve() { # DIR [OPTION...]; sets addr and pid
    local dst=$1
    shift
    "$bin" serve --listen 127.0.0.1:0 --dst "$dst" "$@" >"$dst.log" 2>&1 &
    pid=$!
    await_addr "$dst.log" "$pid"
}
# Waits until a command succeeds: what happens behind the answer (a sidecar) has a moment, not more.
eventually() {
    local n
    for n in $(seq 200); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    fail "never became true: $*"
}

# Runs the entries "function|what it shows" of `cases`; with arguments, those alone.
run_cases() {
    local entry name start status passed=0
    for entry in "${cases[@]}"; do
        name=${entry%%|*}
        case " $* " in "  " | *" $name "*) ;; *) continue ;; esac
        mkdir "$work/$name"
        start=$SECONDS
        # In the background and waited for: inside an `if`, set -e has no effect.
        (
            set -eE
            cd "$work/$name"
            # shellcheck disable=SC2064
            trap 'for p in $(jobs -p); do kill -9 "$p" 2>/dev/null || true; done' EXIT
            trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
            "$name"
        ) >"$work/$name/log" 2>&1 &
        status=0
        wait $! || status=$?
        if [ "$status" = 0 ]; then
            echo "ok: $name: ${entry#*|} ($((SECONDS - start)) s)"
            passed=$((passed + 1))
        else
            echo "FAILED: $name: ${entry#*|}"
            tail -n 5 "$work/$name/log" | sed 's/^/      /'
            failed=$((failed + 1))
        fi
    done
    echo "$(basename "$0"): $passed passed, $failed failed"
    [ "$failed" = 0 ]
}
