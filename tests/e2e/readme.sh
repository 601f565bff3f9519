# The tour of the README.
# shellcheck shell=bash disable=SC2154,SC2034
cases+=(
    "help|every command explains itself"
    "did_you_mean|a mistyped command or option gets a suggestion, status 2"
    "tour|serve, record, ls, cat, play, join"
    "statuses|exit statuses pass through; 254 when recording is required and impossible"
    "stop|SIGTERM ends the recorder in order"
    "demo|the story of make demo"
    "install|make install puts everything under PREFIX and DESTDIR"
)

help() {
    for command in serve record login-shell play ls cat join demo; do
        "$bin" "$command" --help >out || fail "$command --help: $?"
        grep -q -- "$command" out && [ "$(wc -l <out)" -gt 5 ] || fail "$command --help says little"
        "$bin" --help | grep -qE "^ *$command " || fail "$command is not in castkeep --help"
    done
    "$bin" --version | grep -qF "$(sed -n 's/^version = "\(.*\)"/\1/p' "$root/Cargo.toml" | head -n 1)"
}

did_you_mean() {
    status=0
    "$bin" recrod 2>err || status=$?
    [ "$status" = 2 ] && grep -q 'record' err || fail "status $status: $(cat err)"
    status=0
    "$bin" serve --lisen 127.0.0.1:0 2>err || status=$?
    [ "$status" = 2 ] && grep -q -- '--listen' err || fail "status $status: $(cat err)"
}

tour() {
    serve dst
    "$bin" record --recorders "$addr" -- printf 'hello \033[1mworld\033[0m\n' >shown </dev/null
    printf 'hello \033[1mworld\033[0m\n' | cmp - shown || fail "what was shown differs"
    "$bin" ls --json dst >list
    id=$(grep -oE '"recording": ?"[0-9a-f]{32}"' list | grep -oE '[0-9a-f]{32}' | head -n 1)
    [ -n "$id" ] || fail "ls --json: $(cat list)"
    "$bin" ls dst | grep -q "${id:0:4}" || fail "ls: $("$bin" ls dst)"
    [ "$("$bin" cat dst "${id:0:6}")" = "hello world" ] || fail "cat: $("$bin" cat dst "${id:0:6}")"
    "$bin" play --raw dst "$id" >played </dev/null
    cmp played shown || fail "play --raw differs"
    "$bin" join -o whole.cast dst "$id"
    cmp whole.cast dst/*/*.cast || fail "join differs from the one part"
}

statuses() {
    serve dst
    status=0
    "$bin" record --enforce --recorders "$addr" -- sh -c 'exit 42' </dev/null || status=$?
    [ "$status" = 42 ] || fail "status $status"
    status=0
    "$bin" record --enforce --recorders 127.0.0.1:1 -- touch started </dev/null 2>err || status=$?
    [ "$status" = 254 ] && [ ! -e started ] && [ -s err ] || fail "closed: status $status: $(cat err)"
    "$bin" record --open --recorders 127.0.0.1:1 -- touch started </dev/null 2>err || fail "open: $?: $(cat err)"
    [ -e started ] || fail "open: the command did not run"
}

stop() {
    serve dst
    "$bin" record --recorders "$addr" -- echo bye </dev/null
    kill -TERM "$pid"
    wait "$pid" || fail "status $?: $(tail -n 3 dst.log)"
    ! ls dst/open/*.journal 2>/dev/null || fail "a journal is left"
    grep -q '"how":"sealed"' dst/*/*.json
}

demo() {
    "$bin" demo >out 2>&1 </dev/null || fail "demo: $?: $(tail -n 5 out)"
    [ -s out ]
}

install() {
    # Takes what is there, as `make install` does; a release build is not made for it.
    mkdir -p t/release
    cp "$bin" t/release/castkeep
    "$root/ci/clib" "$PWD/c"
    CARGO_TARGET_DIR=$PWD/t make -s -C "$root" install PREFIX=/opt/ck LIBDIR=/opt/ck/lib/here C_LIBRARY="$PWD/c" DESTDIR="$PWD/stage"
    for file in bin/castkeep include/castkeep.h lib/here/libcastkeep.a lib/here/libcastkeep.so share/man/man1/castkeep.1; do
        [ -s "stage/opt/ck/$file" ] || fail "$file is not installed"
    done
    stage/opt/ck/bin/castkeep --version >/dev/null
    export PKG_CONFIG_PATH=$PWD/stage/opt/ck/lib/here/pkgconfig PKG_CONFIG_SYSROOT_DIR=$PWD/stage
    cc "$root/ffi/ctest/header.c" $(pkg-config --cflags --libs castkeep) -o header
    LD_LIBRARY_PATH=$PWD/stage/opt/ck/lib/here ./header || fail "a program with the installed library: $?"
}
