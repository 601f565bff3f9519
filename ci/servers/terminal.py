"""Runs a command on a terminal of its own and does steps there:

    terminal.py [STEP...] -- COMMAND...

    size=COLSxROWS    the terminal's size, from the start if it is the first step
    expect=TEXT       waits until the text is shown, behind what was expected before
    send=TEXT         types it; \\r \\n \\x03 are understood
    run=COMMAND       runs a shell command here
    hangup            closes the terminal

What was shown goes to standard output; the exit status is the command's, 128 + n for a signal, 99 when a step is not done in time.
"""

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time

LIMIT_S = 45


def resize(fd, text):
    cols, rows = map(int, text.split("x"))
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, cols, 0, 0))


def main():
    at = sys.argv.index("--")
    steps, command = sys.argv[1:at], sys.argv[at + 1 :]
    size = "80x24"
    if steps and steps[0].startswith("size="):
        size = steps.pop(0)[5:]
    pid, fd = pty.fork()
    if pid == 0:
        resize(0, size)
        os.environ["TERM"] = "xterm"
        os.execvp(command[0], command)
    shown, seen, by = bytearray(), 0, time.monotonic() + LIMIT_S

    def read(wait):
        ready, _, _ = select.select([fd], [], [], wait)
        if not ready:
            return True
        try:
            got = os.read(fd, 65536)
        except OSError:
            got = b""
        shown.extend(got)
        return bool(got)

    def fail(why):
        sys.stdout.buffer.write(bytes(shown))
        sys.stdout.flush()
        print(f"\nterminal.py: {why}", file=sys.stderr)
        os.kill(pid, signal.SIGKILL)
        sys.exit(99)

    alive = True
    for step in steps:
        name, _, value = step.partition("=")
        if name == "expect":
            text = value.encode()
            while (found := shown.find(text, seen)) < 0:
                if not alive or time.monotonic() > by:
                    fail(f"{value!r} was not shown")
                alive = read(0.2)
            seen = found + len(text)
        elif name == "send":
            os.write(fd, value.encode().decode("unicode_escape").encode("latin-1"))
        elif name == "size":
            resize(fd, value)
            os.kill(pid, signal.SIGWINCH)
        elif name == "run":
            if subprocess.run(value, shell=True, check=False).returncode != 0:
                fail(f"{value!r} failed")
        elif name == "hangup":
            os.close(fd)
            fd, alive = -1, False
        else:
            fail(f"no such step: {step}")
    while alive and time.monotonic() < by:
        alive = read(0.2)
    while True:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            break
        if time.monotonic() > by:
            fail("it does not end")
        time.sleep(0.02)
    sys.stdout.buffer.write(bytes(shown))
    sys.stdout.flush()
    code = os.waitstatus_to_exitcode(status)
    sys.exit(code if code >= 0 else 128 - code)


main()
