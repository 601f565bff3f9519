# A client built for another processor, and recorders of this machine's.
# shellcheck shell=bash disable=SC2154,SC2034
cases+=(
    "session|a client on another processor loses its recorder in mid-session, and join finds nothing missing"
    "closed|a client on another processor without a recorder starts nothing when it must be recorded"
)

session() {
    serve first
    first=$addr first_pid=$pid
    serve second
    second=$addr
    # The program stops half way, until the recorder that had it is gone.
    cat >lines <<'T'
i=0
while [ $i -lt 400 ]; do
    echo "line $i: äöü and $i"
    i=$((i + 1))
    if [ $i = 200 ]; then
        : >half
        while [ ! -e killed ]; do sleep 0.05; done
    fi
done
exit 7
T
    $QEMU "$there" record --enforce --release commit --recorders "$first,$second" -- sh lines >shown 2>err </dev/null &
    client=$!
    eventually [ -e half ]
    kill -9 "$first_pid"
    : >killed
    status=0
    wait "$client" || status=$?
    [ "$status" = 7 ] || fail "status $status: $(tail -n 3 err)"
    i=0
    while [ $i -lt 400 ]; do echo "line $i: äöü and $i"; i=$((i + 1)); done >expected
    cmp expected shown || fail "what was shown differs"
    [ "$(ls first/*/*.cast first/*.cast 2>/dev/null | wc -l)" -ge 1 ] || fail "the first recorder has no part"
    [ "$(ls second/*/*.cast | wc -l)" = 1 ] || fail "the second recorder has no part"
    id=$("$bin" ls --json second | grep -oE '"recording": ?"[0-9a-f]{32}"' | grep -oE '[0-9a-f]{32}' | head -n 1)
    "$bin" join -o whole.cast first second "$id"
    "$bin" play --raw whole.cast >played </dev/null
    cmp expected played || fail "what was recorded differs"
    grep -q '"x", *"\?7' whole.cast || grep -qE 'exit.*7' whole.cast || fail "the exit status is not recorded: $(tail -n 2 whole.cast)"
}

closed() {
    status=0
    $QEMU "$there" record --enforce --start-limit 2s --recorders 127.0.0.1:1 -- touch started 2>err </dev/null || status=$?
    [ "$status" = 254 ] && [ ! -e started ] && [ -s err ] || fail "status $status: $(cat err)"
}
