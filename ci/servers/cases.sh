# The cases that every server has to pass; a server's script says which apply to it. Each runs in a directory of its own, with
# recorders and a server of its own. Sourced after lib.sh.
# shellcheck shell=bash disable=SC2154,SC2034

shell_on_tty() {
    start closed
    status_of on_tty size=90x30 expect='ready> ' send='echo shell says $((6*7))\r' expect='shell says 42' send='exit 5\r' \
        -- "${client[@]}" >shown
    expect status "$status" 5
    whole kind=shell "localUser=$user"
    expect exit "$(said exit)" 5
    expect width "$(said header width)" 90
    expect height "$(said header height)" 30
    contains "what cat prints" "$("$bin" cat whole.cast)" 'shell says 42'
}
exec_without_tty() {
    start closed
    status_of client 'echo out; echo err >&2; exit 42' >out 2>err
    expect status "$status" 42
    expect stdout "$(cat out)" out
    expect stderr "$(cat err)" err
    whole kind=exec
    expect "recorded stdout" "$(said stdout)" out
    expect "recorded stderr" "$(said stderr)" err
    expect exit "$(said exit)" 42
    expect command "$(said header command)" 'echo out; echo err >&2; exit 42'
}
exec_with_tty() {
    start closed
    status_of on_tty size=100x20 -- "${client[@]:0:3}" -tt "${client[@]:3}" 'test -t 0 && test -t 1 && stty size; exit 3' >shown
    expect status "$status" 3
    contains shown "$(cat shown)" '20 100'
    whole kind=exec
    contains recorded "$(said stdout)" '20 100'
    expect width "$(said header width)" 100
    expect exit "$(said exit)" 3
}
binary_both_ways() {
    start closed
    head -c 300000 /dev/urandom >in
    client 'cat >t; cat t; cat t >&2' <in >out 2>err
    same in out
    same in err
    whole kind=exec
    said stdout >recorded
    same in recorded
    said stderr >recorded
    same in recorded
}
early_stdin() {
    recorder a
    throttle 8103 8101 0 1.5
    recorders='"127.0.0.1:8103"' start_server closed
    head -c 100000 /dev/urandom >in
    client cat <in >out
    same in out
    whole kind=exec
    said stdout >recorded
    same in recorded
}
resize() {
    start closed
    on_tty size=80x24 expect='ready> ' size=111x33 send='stty size\r' expect='33 111' send='exit\r' -- "${client[@]}" >shown
    whole kind=shell
    contains sizes "$(said sizes)" 111x33
}
exit_by_signal() {
    start closed
    status_of client 'kill -TERM $$' 2>err
    expect status "$status" 255
    whole kind=exec
    expect exit "$(said exit)" 143
    contains markers "$(said markers)" 'castkeep:signal TERM'
}
several_channels() {
    start closed
    local mux=(-S "$PWD/mux") n
    client -M "${mux[@]}" -fN
    for n in 1 2 3; do
        ssh "${ssh_options[@]}" "${mux[@]}" "$user@$shown_host" "cat; echo channel $n; seq 5000" </dev/null >"out.$n" 2>"err.$n" &
        jobs[n]=$!
    done
    for n in 1 2 3; do wait "${jobs[n]}" || fail "channel $n: status $?: $(cat "err.$n")"; done
    ssh "${ssh_options[@]}" "${mux[@]}" -O exit "$user@$shown_host" 2>/dev/null
    for n in 1 2 3; do
        whole "command=cat; echo channel $n; seq 5000"
        said stdout >recorded
        same "out.$n" recorded
        said header connectionID >>connections
    done
    expect "connection ids" "$(sort -u connections | wc -l)" 1
    contains "connection id" "$(cat connections)" 127.0.0.1-
}
failover() {
    start closed
    on_tty expect='ready> ' send='seq -f "first %.0f" 2000; echo half""way\r' expect=halfway run="kill -9 $recorder_a" \
        expect='ready> ' send='seq -f "second %.0f" 2000; echo all""done\r' expect=alldone expect='ready> ' send='exit\r' \
        -- "${client[@]}" >shown
    whole kind=shell
    expect parts "$(find a b -name '*.cast' | wc -l)" 2
    said stdout | tr -d '\r' >recorded
    for word in first second; do
        expect "$word lines" "$(grep -c "^$word [0-9]*$" recorded)" 2000
    done
    expect exit "$(said exit)" 0
}
slow_recorder() {
    recorder a
    throttle 8103 8101 200000
    recorders='"127.0.0.1:8103"' start_server closed '"ring": "64KiB"'
    local mux=(-S "$PWD/mux") before after answered
    client -M "${mux[@]}" -fN
    # A shell on one channel, and a program that says much on another.
    ssh "${ssh_options[@]}" "${mux[@]}" "$user@$shown_host" 'seq -f "line %.0f of a lot" 40000' >out &
    local much=$!
    coproc quick { ssh "${ssh_options[@]}" "${mux[@]}" "$user@$shown_host" 'while read -r x; do echo "got $x"; done'; }
    sleep 1
    kill -0 "$much" || fail "it was not held back"
    before=$(all_ticks)
    echo now >&"${quick[1]}"
    answered=
    read -r -t 2 answered <&"${quick[0]}" || true
    expect "the other channel" "$answered" 'got now'
    sleep 1
    after=$(all_ticks)
    [ $((after - before)) -lt 50 ] || fail "$((after - before)) ticks of processor time in a second of waiting"
    eval "exec ${quick[1]}>&-"
    wait "$much"
    seq -f "line %.0f of a lot" 40000 | cmp -s - out || fail "what was shown is not what was written"
    ssh "${ssh_options[@]}" "${mux[@]}" -O exit "$user@$shown_host" 2>/dev/null || true
    whole 'command=seq -f "line %.0f of a lot" 40000'
    said stdout >recorded
    same out recorded
}
# Ticks of everything that serves: the server and what it started.
all_ticks() {
    local sum=0 pid
    for pid in $(descendants "$server_pid"); do sum=$((sum + $(ticks "$pid" 2>/dev/null || echo 0))); done
    echo "$sum"
}
descendants() { # PID: it and everything below it
    local child
    echo "$1"
    for child in $(pgrep -P "$1" || true); do descendants "$child"; done
}
# A shell that talks on and on; sets client_pid.
talker() {
    python3 "$here/terminal.py" expect='ready> ' send='i=0; while :; do echo tick $((i+=1)); sleep 0.05; done\r' expect='tick 9' run='touch talks' \
        expect='tick 999999' -- "${client[@]}" >shown 2>/dev/null &
    client_pid=$!
    eventually test -e talks
}
client_disconnects() {
    start closed
    talker
    # terminal.py dies and with it the terminal of ssh, and ssh.
    kill -9 "$client_pid"
    eventually no_sessions || fail "still there: $(ps ax)"
    whole kind=shell
    contains recorded "$(said stdout)" 'tick 9'
}
no_sessions() { [ "$(pgrep -u "$uid" | wc -l)" = 0 ]; }
# The process of the server that serves the connection: what server_sessions prints.
session_is_terminated() {
    start closed
    talker
    # shellcheck disable=SC2046
    kill -TERM $(server_sessions)
    eventually no_sessions || fail "still there: $(ps ax)"
    whole kind=shell
    contains recorded "$(said stdout)" 'tick 9'
    wait "$client_pid" || true
}
# The one that listens. Whoever is logged in stays, as without recording; nobody new comes in.
daemon_is_terminated() {
    start closed
    outlives_its_daemon
    whole kind=shell
    contains recorded "$(said stdout)" 'still 42'
    expect exit "$(said exit)" 7
}
outlives_its_daemon() {
    local gone="for i in \$(seq 400); do kill -0 $server_pid 2>/dev/null || exit 0; sleep 0.05; done; exit 1"
    status_of on_tty expect='ready> ' run="kill -TERM $server_pid; $gone" send='echo still $((6*7))\r' expect='still 42' \
        send='exit 7\r' -- "${client[@]}" >shown
    expect status "$status" 7
    is_free "$port" || fail "something listens"
}
# Sessions begin with a request; until then a channel is nothing to a recording.
idle_channels() {
    start closed
    local said line served before
    coproc raw { exec "$root/build/servers/idle_channel" "$port" "$user" "$work/key" 'echo beside; exit 5'; }
    next_step() {
        said=''
        while IFS= read -r -t 40 -u "${raw[0]}" line; do
            said+="$line "
            case $line in "$1") return ;; esac
        done
        fail "instead of $1: $said"
    }
    next_step 'one beside it'
    expect said "$said" 'beside status 5 one beside it '
    served=$(server_sessions)
    before=$(descriptors "$served")
    echo >&"${raw[1]}"
    next_step 'twenty came and went'
    contains said "$said" 'beside status 5'
    # shellcheck disable=SC2317
    as_before() { [ "$(descriptors "$served")" -le "$before" ]; }
    eventually as_before || fail "descriptors: $before before, $(descriptors "$served") now"
    echo >&"${raw[1]}"
    next_step 'then it was used'
    contains said "$said" 'beside status 5'
    echo >&"${raw[1]}"
    next_step 'gone with one open'
    kill -9 "$raw_PID"
    eventually no_connections || fail "still there: $(ps ax)"
    expect recordings "$(pick state=sealed | wc -l) of $(pick | wc -l)" '3 of 3'
}
descriptors() { # PID...
    local pid sum=0
    for pid in "$@"; do sum=$((sum + $(find "/proc/$pid/fd" -mindepth 1 2>/dev/null | wc -l))); done
    echo "$sum"
}
no_connections() { [ -z "$(server_sessions)" ]; }
# The server's process opened keys and sockets as root and forked; what it forked is the user's, and has nothing of that.
nothing_of_root_is_left() {
    start closed
    cat >"$place/looks" <<'END'
sed -n 's/^Groups:\t\(.*[0-9]\) *$/groups \1/p; s/^[UG]id:/ids/p' /proc/self/status | tr '\t' ' '
grep -h '^Cap[PEA]' /proc/self/status | tr -d '0'
for f in /proc/$PPID/fd /proc/$PPID/mem; do { ls $f/ || head -c 1 $f; } >/dev/null 2>&1 && echo $f can be read; done
exec ls -lN /proc/self/fd
END
    client ". $place/looks" >out </dev/null
    expect "without a terminal" "$(looked out)" "$(looks pipe: pipe: pipe:)"
    whole "command=. $place/looks"
    on_tty -- "${client[@]:0:3}" -tt "${client[@]:3}" ". $place/looks" >out
    expect "on a terminal" "$(looked out)" "$(looks /dev/pts/ /dev/pts/ /dev/pts/)"
}
looked() { # FILE
    local given
    # What the daemon was given by whoever runs the cases is not its own.
    given=$(find /proc/1/fd -mindepth 1 -name '[3-9]*' -o -mindepth 1 -name '??*' | while read -r fd; do echo " ${fd##*/} -> $(readlink "$fd")"; done)
    tr -d '\r' <"$1" | grep -vF "${given:- none}" | sed -E '/^total/d; /^castkeep: /d; / -> \/proc\/[0-9]+\/fd$/d; s/^.* ([0-9]+) -> /descriptor \1 /; /^descriptor/ s/\[?[0-9]+\]?$//'
}
looks() { # what 0, 1 and 2 are
    printf '%s\n' "ids $uid $uid $uid $uid" "ids $uid $uid $uid $uid" "groups $uid $((uid + 1))" "CapPrm:	" "CapEff:	" "CapAmb:	" \
        "descriptor 0 $1" "descriptor 1 $2" "descriptor 2 $3"
}
closed_at_the_start() {
    start_server closed '"reject-message": "Not without a witness."'
    status_of client "touch $PWD/ran; echo ran" >out 2>err
    expect status "$status" 254
    expect stdout "$(cat out)" ''
    contains stderr "$(cat err)" 'Not without a witness.'
    status_of on_tty -- "${client[@]}" >shown
    expect "status of a shell" "$status" 254
    contains shown "$(cat shown)" 'Not without a witness.'
    [ ! -e ran ] || fail "the command ran"
}
closed_in_the_middle() {
    start closed '"terminate-message": "The witness is gone."'
    status_of on_tty expect='ready> ' send="trap '' HUP; echo be\"\"gun\r" expect=begun \
        run="kill -9 $recorder_a $recorder_b" send='while :; do echo more; sleep 0.1; done\r' expect='The witness is gone.' \
        -- "${client[@]}" >shown
    expect status "$status" 254
    eventually no_sessions || fail "still there: $(ps ax)"
}
open_at_the_start() {
    start_server open
    status_of client 'echo let in; exit 4' >out 2>err
    expect status "$status" 4
    expect stdout "$(cat out)" 'let in'
}
# More than the ring holds comes through only when the policy has let it.
open_in_the_middle() {
    start open '"ring": "64KiB", "stall-limit": "500ms"'
    status_of on_tty expect='ready> ' send='echo be""gun\r' expect=begun run="kill -9 $recorder_a $recorder_b" \
        send='echo seen by"" nobody\r' expect='seen by nobody' send='seq 100000; echo fl""ows\r' expect=flows \
        send='exit 6\r' -- "${client[@]}" >shown
    expect status "$status" 6
}
sftp_passes() {
    start closed
    head -c 500000 /dev/urandom >in
    printf 'put in there\nget there out\n' |
        timeout 60 sftp "${ssh_options[@]}" -q -P "$port" -b - "$user@$shown_host" >log
    same in out
    rm -f "$home/there"
    whole kind=subsystem
    expect "payload in the recording" "$(said stdout | wc -c)" 0
    contains markers "$(said markers)" castkeep:sftp
    expect exit "$(said exit)" 0
}
sftp_is_refused() {
    start closed '"sftp": "refuse"'
    status_of sftp "${ssh_options[@]}" -q -P "$port" -b <(echo pwd) "$user@$shown_host" 2>err
    expect status "$status" 255
    expect recordings "$(pick | wc -l)" 0
}
# Payload past the cap is in no recording, and what it was is.
capped() { # FILE: the bytes that went by, standard output
    said stdout >recorded
    expect "recorded bytes" "$(wc -c <recorded)" 65536
    head -c 65536 "$1" | cmp -s - recorded || fail "the recorded bytes are others"
    contains markers "$(said markers)" "bytes=$(($(wc -c <"$1") - 65536)) "
    contains markers "$(said markers)" "sha256=$(tail -c +65537 "$1" | sha256sum | cut -d' ' -f1)"
}
scp_with_its_own_protocol() {
    start closed
    head -c 400000 /dev/urandom >in
    timeout 60 scp -O "${ssh_options[@]}" -q -P "$port" in "$user@$shown_host:there"
    timeout 60 scp -O "${ssh_options[@]}" -q -P "$port" "$user@$shown_host:there" out
    same in out
    rm -f "$home/there"
    whole 'command=scp -f there'
    expect exit "$(said exit)" 0
    contains markers "$(said markers)" castkeep:gap
    expect "recorded bytes" "$(said stdout | wc -c)" 65536
    whole 'command=scp -t there'
}
rsync_goes() {
    start closed
    mkdir tree
    for n in 1 2 3; do head -c 100000 /dev/urandom >"tree/$n"; done
    local rsh="ssh ${ssh_options[*]} -p $port"
    timeout 60 rsync -a -e "$rsh" tree/ "$user@$shown_host:tree"
    timeout 60 rsync -a -e "$rsh" "$user@$shown_host:tree/" back
    diff -r tree back
    rm -rf "$home/tree"
    [ "$(pick state=sealed kind=exec | wc -l)" = 2 ] || eventually two_recordings
}
two_recordings() { [ "$(pick state=sealed kind=exec | wc -l)" = 2 ]; }
git_goes() {
    start closed
    export GIT_CONFIG_GLOBAL=/dev/null GIT_SSH_COMMAND="ssh ${ssh_options[*]} -p $port" GIT_TERMINAL_PROMPT=0
    git init -q -b main one
    head -c 300000 /dev/urandom >one/file
    git -C one add file
    git -C one -c user.name=A -c user.email=a@a commit -qm one
    client "git init -q --bare -b main $home/repo.git"
    timeout 60 git -C one push -q "$user@$shown_host:$home/repo.git" main
    timeout 60 git clone -q "$user@$shown_host:$home/repo.git" two
    same one/file two/file
    rm -rf "$home/repo.git"
    whole "command=git-upload-pack '$home/repo.git'"
    expect exit "$(said exit)" 0
}
# A job in the background holds standard output: the client waits for it, as without castkeep.
background_job_holds_the_pipe() {
    start closed
    local begun=$SECONDS
    status_of client '(sleep 2; echo late) & echo early; exit 9' >out
    expect status "$status" 9
    expect stdout "$(cat out)" "$(printf 'early\nlate')"
    [ $((SECONDS - begun)) -lt 20 ] || fail "it took $((SECONDS - begun)) s"
    whole kind=exec
    expect recorded "$(said stdout)" "$(printf 'early\nlate')"
    # On a terminal nobody is waited for.
    begun=$SECONDS
    on_tty expect='ready> ' send='sleep 30 & echo $! >~/job; exit\r' -- "${client[@]}" >shown
    [ $((SECONDS - begun)) -lt 10 ] || fail "the shell took $((SECONDS - begun)) s to end"
    kill "$(cat "$home/job")" && rm "$home/job"
}

# Nobody names a recorder here: an agent is asked, which has a policy and says so when it changes. ci/servers/policy is the whole of it.
by_policy() {
    ip addr add 100.64.0.21/32 dev lo 2>/dev/null || true
    chmod 755 .
    a_policy "{ \"action\": \"accept\", \"src\": [\"alice@example.com\"], \"dst\": [\"tag:web\"], \"users\": [\"$user\"], \"recorder\": [\"tag:rec\"], \"enforceRecorder\": true }"
    cat >nodes.json <<'N'
{"castkeepNodes":1,"nodes":[
 {"id":"nWeb","name":"web1.example","addresses":["100.64.0.7"],"tags":["tag:web"]},
 {"id":"nA","name":"laptop.example","addresses":["127.0.0.1"],"user":"alice@example.com","userID":1},
 {"id":"nRec","name":"rec1.example","addresses":["100.64.0.21"],"tags":["tag:rec"],"recorder":{"port":8103}}]}
N
    "$bin" serve --listen 100.64.0.21:8103 --dst a --min-free 1 --allow-upload 100.64.0.0/10 --log-level error >>a.log 2>&1 &
    rm -f /run/castkeep/agent.sock
    "$bin" agent --policy policy.hujson --nodes nodes.json --node nWeb --socket /run/castkeep/agent.sock --state agent 2>agent.log >agent.out &
    eventually test -S /run/castkeep/agent.sock
    eventually is_free "$port"
    server_start '"policy": "unix:/run/castkeep/agent.sock", "grace": "3s"'
    eventually listens "$port"
    status_of client 'echo by policy; exit 3' >out
    expect "status and output" "$status $(cat out)" '3 by policy'
    whole kind=exec
    expect source "$(said header srcNodeID) $(said header srcNodeUser) $(said header castkeep.sourceBy)" 'nA alice@example.com registry'
    # It is taken back while a session runs.
    (trap - ERR; set +e; "${client[@]}" 'echo begun; exec sleep 300') >out 2>err &
    local ssh_pid=$!
    eventually grep -q begun out
    a_policy ''
    status=0
    wait "$ssh_pid" || status=$?
    expect "status of the revoked" "$status" 254
    contains "what is told" "$(cat out err)" 'Access revoked.'
    eventually no_sessions || fail "still there: $(ps ax)"
    status_of client 'echo never' >out 2>err </dev/null
    expect "status of the refused" "$status" 254
    [ ! -s out ] || ! grep -qx never out || fail "it ran"
}
a_policy() { # RULES
    echo "{\"groups\": {}, \"tagOwners\": {\"tag:web\": [], \"tag:rec\": []}, \"ssh\": [$1]}" >policy.new
    mv policy.new policy.hujson
}

common=(
    "shell_on_tty|a shell on a terminal, its size and status"
    "exec_without_tty|standard output and error apart, the status"
    "exec_with_tty|ssh -tt with a command"
    "binary_both_ways|every byte in, out and in the recording"
    "early_stdin|input that came before the recorder answered"
    "resize|a terminal that changes its size"
    "exit_by_signal|a command that a signal ended"
    "several_channels|three sessions on one connection"
    "failover|the first recorder is killed in mid-session"
    "slow_recorder|one channel is held back, another goes on, nothing spins"
    "client_disconnects|the client is gone"
    "session_is_terminated|SIGTERM to the server's process"
    "daemon_is_terminated|SIGTERM to the listening daemon"
    "nothing_of_root_is_left|the command's ids and descriptors"
    "closed_at_the_start|no recorder, closed: message, 254, nothing ran"
    "closed_in_the_middle|all recorders die, closed: message, 254"
    "open_at_the_start|no recorder, open"
    "open_in_the_middle|all recorders die, open"
    "sftp_passes|sftp leaves a header, a marker and its exit"
    "sftp_is_refused|sftp refused by policy"
    "scp_with_its_own_protocol|scp -O, its volume capped"
    "rsync_goes|rsync both ways"
    "git_goes|git push and clone"
    "background_job_holds_the_pipe|as without castkeep"
    "by_policy|an agent says who records; what it takes back ends"
)
# ci/servers/client.build says when it is not there.
[ ! -x "$root/build/servers/idle_channel" ] || common+=("idle_channels|channels in which nothing is started")
