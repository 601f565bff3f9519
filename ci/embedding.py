"""Runs docs/embedding.md, and the examples in C; see ci/embedding."""

import fnmatch
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
END = "--castkeep-end-of-block--"
# A hang guard: one block builds the library.
BLOCK_LIMIT_S = 1500
failures = 0


def verdict(name, why=None):
    global failures
    failures += why is not None
    print(f"ok: {name}" if why is None else f"FAILED: {name}: {why}", flush=True)
    return why is None


def blocks(path):
    """(heading, commands, expected or None) of each sh block."""
    heading, found, fence, lines = "", [], None, []
    for line in open(path):
        if fence is None and line.startswith("## "):
            heading = line[3:].strip()
        opened = re.match(r"```(\w*)$", line)
        if fence is None and opened:
            fence, lines = opened[1], []
        elif fence is not None and line == "```\n":
            if fence == "sh":
                found.append([heading, "".join(lines), None])
            elif fence == "text":
                found[-1][2] = "".join(lines)
            fence = None
        elif fence is not None:
            lines.append(line)
    return found


def matches(got, wanted):
    got, wanted = got.split("\n"), wanted.split("\n")
    glob = lambda line: re.sub(r"([\[?*])", r"[\1]", line).replace("...", "*")
    return len(got) == len(wanted) and all(fnmatch.fnmatchcase(g, glob(w)) for g, w in zip(got, wanted))


def another_figure(wanted):
    """The text with its last figure changed, or None without one: what a check that checks must not let through."""
    changed = re.sub(r"(\d)(?=\D*\Z)", lambda digit: str((int(digit[1]) + 1) % 10), wanted)
    return None if changed == wanted else changed


def free_port():
    """The document's own, unless somebody has it."""
    with socket.socket() as one:
        try:
            one.bind(("127.0.0.1", 18080))
        except OSError:
            one.close()
            one = socket.socket()
            one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


def one_block(shell, commands):
    """What the commands print, and why there is no more of it."""
    # The end is looked for with a line end of its own in front: what comes before may lack one.
    shell.stdin.write(f"{commands}printf '\\n%s\\n' '{END}'\n".encode())
    shell.stdin.flush()
    got, end, by = b"", f"\n{END}\n".encode(), time.monotonic() + BLOCK_LIMIT_S
    text = lambda: got.decode(errors="replace").replace("\r\n", "\n")
    while not got.endswith(end):
        if not select.select([shell.stdout], [], [], max(0, by - time.monotonic()))[0]:
            return text(), f"it does not end within {BLOCK_LIMIT_S} s"
        more = os.read(shell.stdout.fileno(), 65536)
        if not more:
            return text(), f"it ends with {shell.wait()}"
        got += more
    got = got[: -len(end)]
    return text(), None


def document(scratch):
    home = os.path.join(scratch, "home")
    os.mkdir(home)
    env = {k: v for k, v in os.environ.items() if not k.startswith("CASTKEEP")}
    # What builds keeps its own things where they are; a fresh HOME is for what the document makes.
    for name, below in (("CARGO_HOME", ".cargo"), ("RUSTUP_HOME", ".rustup"), ("npm_config_cache", ".npm")):
        env.setdefault(name, os.path.join(os.path.expanduser("~"), below))
    shell = subprocess.Popen(["bash"], cwd=ROOT, env={**env, "HOME": home}, stdin=subprocess.PIPE,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    port = free_port()
    try:
        for number, (heading, commands, wanted) in enumerate(blocks(os.path.join(ROOT, "docs/embedding.md")), 1):
            # A block may read no more of the shell's input than itself.
            file = os.path.join(scratch, f"block.{number}")
            with open(file, "w") as out:
                out.write(commands.replace("18080", port))
            name = f"embedding.md: block {number}, {heading}"
            got, why = one_block(shell, f"set -e\n. {file} </dev/null\n")
            if why:
                return verdict(name, f"{why}:\n{got}")
            verdict(name, None if wanted is None or matches(got, wanted) else f"it prints\n{got}and should print\n{wanted}")
            if wanted and (mutant := another_figure(wanted)) and matches(got, mutant):
                verdict(name, f"it would pass for\n{mutant}as well")
    finally:
        try:
            os.killpg(shell.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
    return os.path.join(home, "castkeep")


def run(command, **more):
    return subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=300, **more)


def whole(castkeep, rec, wanted, **keys):
    """Checks that the one recording with these keys is sealed and holds what was shown."""
    import json
    listed = [json.loads(line) for line in run([castkeep, "ls", "--json", rec]).stdout.splitlines()]
    listed = [one for one in listed if all(one[k] == v for k, v in keys.items())]
    if [one["state"] for one in listed] != ["sealed"]:
        return f"not one sealed recording: {listed}"
    played = run([castkeep, "play", "--raw", "--quiet", rec, listed[0]["id"]])
    return None if played.stdout == wanted else f"recorded is {played.stdout[:200]!r} {played.stderr[:200]!r}"


class Recorder:
    def __init__(self, castkeep, rec, *options):
        self.rec = rec
        self.process = subprocess.Popen([castkeep, "serve", "--listen", "127.0.0.1:0", "--dst", rec, "--log-level", "error", *options],
                                        stdout=subprocess.PIPE, text=True)
        self.address = self.process.stdout.readline().split()[-1].rpartition("/")[2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()


def certificates(place):
    """Two authorities, and the recorder's certificate by the first."""
    os.mkdir(place)
    tls = lambda *words: subprocess.run(["openssl", *words], cwd=place, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30"]
    for name in ("recorders", "others"):
        tls("req", "-x509", *key, "-subj", f"/CN={name}", "-keyout", f"{name}.key", "-out", f"{name}.pem")
    tls("req", *key, "-subj", "/CN=recorder", "-keyout", "rec.key", "-out", "rec.csr")
    with open(os.path.join(place, "rec.ext"), "w") as out:
        out.write("subjectAltName=DNS:rec.example\n")
    tls("x509", "-req", "-in", "rec.csr", "-CA", "recorders.pem", "-CAkey", "recorders.key", "-CAcreateserial", "-days", "30",
        "-extfile", "rec.ext", "-out", "rec.pem")


# What `ssh -W` would do: standard input and output, and a connection.
RELAY = """
import os, socket, sys, threading
there = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def up():
    while (got := os.read(0, 65536)): there.sendall(got)
    there.shutdown(socket.SHUT_WR)
threading.Thread(target=up, daemon=True).start()
while (got := there.recv(65536)): os.write(1, got)
"""


def judged(name, got, code, shown, also=lambda: None):
    """The example's status and output; then what else has to hold."""
    right = got.returncode == code and (got.stdout == shown if isinstance(shown, bytes) else shown(got))
    verdict(name, also() if right else f"status {got.returncode}, {got.stdout[:200]!r} {got.stderr!r}")


def minimal_mutant(out, compiler, env):
    """minimal.c that ends well when it is refused: the check of the real one has to tell them apart."""
    with open(os.path.join(ROOT, "examples/c/minimal.c")) as file:
        source = file.read()
    right = "if (event == CASTKEEP_EVENT_REFUSED) exit_code = 254;"
    mutant = source.replace(right, right.replace("254", "0"))
    path = os.path.join(out, "mutant")
    with open(path + ".c", "w") as file:
        file.write(mutant)
    flags = run(["pkg-config", "--cflags", "--libs", "castkeep"], env=env).stdout.decode().split()
    built = run([compiler, path + ".c", *flags, "-o", path], env=env)
    return verdict(f"minimal to break, {compiler}", "no such line in it" if mutant == source else built.stderr.decode() if built.returncode else None)


def examples(prefix, scratch):
    env = {**os.environ, "PKG_CONFIG_PATH": prefix + "/lib/pkgconfig", "LD_LIBRARY_PATH": prefix + "/lib"}
    castkeep = prefix + "/bin/castkeep"
    text = "".join(f"line {n} of a pipe\n" for n in range(40000)).encode()
    tls = os.path.join(scratch, "tls")
    certificates(tls)
    with open(os.path.join(ROOT, "examples/c/minimal.c")) as file:
        lines = len(file.readlines())
    verdict("minimal.c has at most 60 lines", None if lines <= 60 else f"it has {lines}")
    for compiler in ("gcc", "clang"):
        out = os.path.join(scratch, compiler)
        os.mkdir(out)
        built = run(["make", "-s", "-C", os.path.join(ROOT, "examples/c"), f"CC={compiler}", f"OUT={out}", "CFLAGS=-O2 -g -Werror", "all", "mbedtls"], env=env)
        if not verdict(f"examples/c with {compiler}", built.stderr.decode() if built.returncode else None):
            continue
        config = os.path.join(out, "castkeep.hujson")
        go = lambda program, *words, **more: run([os.path.join(out, program), *words], env=env, **more)
        with Recorder(castkeep, os.path.join(out, "rec")) as recorder:
            with open(config, "w") as file:
                file.write('{"recorders": ["%s"], "enforce": true, "close-wait": "20s"}' % recorder.address)
            recorded = lambda wanted, **keys: lambda: whole(castkeep, recorder.rec, wanted, **keys)
            judged(f"minimal, {compiler}", go("minimal", config, input=text), 0, text, recorded(text, command="minimal"))
            typed = b"typed\r\ngot typed\r\n24 80\r\n"
            judged(f"tee_pty, {compiler}", go("tee_pty", config, "sh", "-c", "read x; echo got $x; stty size; kill -TERM $$", input=b"typed\n"),
                   143, typed, recorded(typed, node=os.uname().nodename))
            relay = os.path.join(out, "relay.py")
            with open(relay, "w") as file:
                file.write(RELAY)
            program = f'test "$RECORDER" = rec.example:80 && exec python3 {relay} {recorder.address.rpartition(":")[2]}'
            judged(f"own_transport, {compiler}", go("own_transport", "rec.example:80", program, input=text), 0, text, recorded(text, command="own_transport"))
        refused = lambda got: b"must be recorded" in got.stderr and not os.path.exists(out + "/ran")
        judged(f"tee_pty without a recorder, {compiler}", go("tee_pty", config, "touch", out + "/ran", stdin=subprocess.DEVNULL), 254, refused)
        nothing = lambda got: got.returncode == 254 and got.stdout == b"" and refused(got)
        got = go("minimal", config, input=text)
        verdict(f"minimal without a recorder, {compiler}", None if nothing(got) else f"status {got.returncode}, {got.stdout[:200]!r} {got.stderr!r}")
        if minimal_mutant(out, compiler, env):
            verdict(f"minimal that takes REFUSED for success is told apart, {compiler}",
                    "it passes" if nothing(go("mutant", config, input=text)) else None)
        refused = lambda got: got.stdout == b"" and b"No recorder, no session." in got.stderr
        judged(f"own_transport over nothing, {compiler}", go("own_transport", "rec.example:80", "exit 1", input=text), 254, refused)
        keys = ["--tls-cert", tls + "/rec.pem", "--tls-key", tls + "/rec.key", "--allow-upload", "anyone"]
        with Recorder(castkeep, os.path.join(out, "secure"), *keys) as recorder:
            over = lambda name, by: go("mbedtls_transport", recorder.address, name, f"{tls}/{by}.pem", input=text)
            judged(f"mbedtls_transport, {compiler}", over("rec.example", "recorders"), 0, text,
                   lambda: whole(castkeep, recorder.rec, text, command="mbedtls_transport"))
            judged(f"mbedtls_transport, another name, {compiler}", over("other.example", "recorders"), 254, refused)
            judged(f"mbedtls_transport, another authority, {compiler}", over("rec.example", "others"), 254, refused)


scratch = tempfile.mkdtemp(prefix="castkeep-embedding.")
prefix = document(scratch)
if prefix and prefix is not True and os.path.isdir(prefix):
    examples(prefix, scratch)
else:
    verdict("the examples", "nothing is installed")
shutil.rmtree(scratch, ignore_errors=True)
print(f"embedding: {failures} failed")
sys.exit(failures != 0)
