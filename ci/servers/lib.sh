# What the scripts of the servers share. A script SERVER sources this, defines `server_start CONFIG` (starts the server with the
# members of a JSON object as its configuration; sets server_pid, and listens on 127.0.0.1:$port), lists its `cases` and ends with
# `serve_cases "$@"`. Runs only inside the namespaces of ci/ssh-servers.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"
[ "${CASTKEEP_CI_ISOLATED:-}" = 1 ] && [ "$$" = 1 ] || { echo "run ci/ssh-servers $(basename "$0")"; exit 2; }
. ci/cases.sh

here=$root/ci/servers
trap 'umount --recursive --lazy "$work/etc" 2>/dev/null || true; cleanup' EXIT
user=ck-alice uid=54321
port=2222
# Where a server puts its own things, root's and readable by everybody.
place=/etc/castkeep
chmod 755 "$work"
home=$work/home
shown_host=127.0.0.1

# A machine of our own: /etc is a copy, what daemons write to is empty, and there is a user.
machine() {
    ip link set lo up
    mkdir "$work/etc" "$home"
    mount -t tmpfs -o mode=755 castkeep "$work/etc"
    cp -a /etc/. "$work/etc"
    mount --bind "$work/etc" /etc
    mount -t tmpfs -o mode=755 castkeep /run
    mount -t tmpfs -o mode=755 castkeep /var/log
    mkdir -p /run/sshd "$place"
    chmod 755 "$place"
    : >/var/log/wtmp
    : >/var/log/lastlog
    # At a path that everybody reaches; a build directory may be private.
    : >"$place/castkeep"
    mount --bind "$bin" "$place/castkeep"
    : >"$place/castkeep-login-shell"
    mount --bind "$bin" "$place/castkeep-login-shell"
    echo "$user:x:$uid:$uid:Alice:$home:${login_shell:-/bin/bash}" >>/etc/passwd
    echo "$user:x:$uid:" >>/etc/group
    echo "$user-more:x:$((uid + 1)):$user" >>/etc/group
    echo "$user:*:19000:0:99999:7:::" >>/etc/shadow
    chown "$uid:$uid" "$home"
    the_prompt
    printf ". ~/.bashrc\n" >"$home/.profile"
    echo 'set enable-bracketed-paste off' >"$home/.inputrc"
    ssh-keygen -q -t ed25519 -N '' -f "$work/key"
    ssh-keygen -q -t ed25519 -N '' -f "$place/host_key"
    ssh-keygen -q -t ecdsa -N '' -f "$place/host_key_ecdsa"
    install -m 644 "$work/key.pub" "$place/authorized_keys"
}

# Something to wait for. A case that has a ~/.bashrc of its own puts it back.
the_prompt() { printf "PS1='ready> '\n" >"$home/.bashrc"; }

# A debug build on a busy machine takes its time.
eventually() {
    local n
    for n in $(seq 600); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.05
    done
    fail "never became true: $*"
}

# ---- recorders, policy, server ----

# Recorders A and B, and the server with a POLICY (closed or open) and more members of its configuration.
start() { # POLICY [JSON-MEMBERS]
    recorder a
    recorder b
    start_server "$@"
}
start_server() { # POLICY [JSON-MEMBERS]; the recorders are those of $recorders
    eventually is_free "$port"
    local policy='"open": true'
    [ "$1" = open ] || policy='"enforce": true'
    server_start "\"recorders\": [${recorders:-\"127.0.0.1:8101\", \"127.0.0.1:8102\"}], $policy, \"grace\": \"3s\"${2:+, $2}"
    eventually listens "$port"
}
# shellcheck disable=SC2034
recorder() { # a|b: on 8101|8102, into ./a or ./b; sets recorder_a or recorder_b
    local at=8101
    [ "$1" = a ] || at=8102
    eventually is_free "$at"
    "$bin" serve --listen "127.0.0.1:$at" --dst "$1" --min-free 1 --log-level error >>"$1.log" 2>&1 &
    eval "recorder_$1=$!"
    eventually listens "$at"
}
# Between the server and a recorder: so many bytes a second, after so many seconds.
throttle() { # PORT TO-PORT BYTES_PER_SECOND [DELAY]
    eventually is_free "$1"
    python3 "$here/throttle.py" "$@" &
    eventually listens "$1"
}
listens() { (exec 4<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }
# What a case before left may take a moment to go.
is_free() { ! listens "$1"; }

# ---- the client ----

ssh_options=(-F none -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR
    -o IdentitiesOnly=yes -o ConnectTimeout=20 -o PasswordAuthentication=no -i "$work/key")
client=(timeout 60 ssh "${ssh_options[@]}" -p "$port" "$user@$shown_host")
client() { "${client[@]}" "$@"; } # [COMMAND]
# On a terminal, with steps to do: see terminal.py.
on_tty() { python3 "$here/terminal.py" "$@"; }
# The exit status of a command, in `status`.
status_of() { status=0; "$@" || status=$?; }

# ---- what was recorded ----

# The one recording that KEY=VALUE (of `castkeep ls --json`) describes, closed in order: its parts joined into whole.cast, its id
# in `id`.
whole() { # [KEY=VALUE...]
    eventually one_recording "$@" || fail "not recorded and sealed: $* in $("$bin" ls a b)"
    id=$(pick "$@")
    "$bin" join --quiet --force -o whole.cast a b "$id" || fail "join $id"
    chmod 644 whole.cast
}
one_recording() { [ "$(pick state=sealed "$@" | wc -l)" = 1 ]; }
pick() { mkdir -p a b && "$bin" ls --json a b | python3 "$here/cast.py" pick "$@"; }
# What whole.cast says: stdout, stderr, input, markers, sizes, exit, header KEY.
said() { python3 "$here/cast.py" tell whole.cast "$@"; }
expect() { # WHAT GOT WANTED
    [ "$2" = "$3" ] || fail "$1: it is [${2:0:300}] and should be [${3:0:300}]"
}
contains() { # WHAT TEXT PART
    case $2 in *"$3"*) ;; *) fail "$1: [${2:0:600}] does not hold [$3]" ;; esac
}
same() { cmp -s "$1" "$2" || fail "$1 and $2 differ: $(wc -c <"$1") and $(wc -c <"$2") bytes"; }
# Processor time of a process in ticks of 10 ms, and of all that run a program.
ticks() { awk '{print $14 + $15}' "/proc/$1/stat"; }

# ---- running ----

# With --smoke: those of `smoke`. With names: those.
serve_cases() { # [--smoke] [CASE...]
    if [ "${1:-}" = --smoke ]; then
        shift
        # shellcheck disable=SC2154
        set -- "${smoke[@]}" "$@"
    fi
    run_cases "$@"
}
