"""Compares what other people's players make of a cast. See ci/players.

check.py convert CAST CONVERTED    the events of both are the same, times to a millisecond
check.py page CAST PLAYER PAGE     makes a page that plays the cast
check.py screen TXT PAGE BROWSER   the browser shows in PAGE what TXT says, within a minute
check.py ours TXT PAGE BROWSER     the same for a page that castkeep made, which loads nothing and runs no script of the recording
"""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time


def events(path):
    lines = pathlib.Path(path).read_text("utf-8").split("\n")
    assert lines.pop() == "", "the last line is torn"
    assert json.loads(lines[0])["version"] == 2
    return [json.loads(line) for line in lines[1:]]


def convert(cast, converted):
    ours, theirs = events(cast), events(converted)
    assert [e[1:] for e in ours] == [e[1:] for e in theirs], f"{ours}\n{theirs}"
    assert any(code == "o" for _, code, _ in ours)
    for a, b in zip(ours, theirs):
        assert abs(a[0] - b[0]) < 0.0011, f"{a} {b}"


def page(cast, player, path):
    here = pathlib.Path(__file__).parent
    text = json.dumps(pathlib.Path(cast).read_text("utf-8")).replace("<", "\\u003c")
    # Inline: the errors of a script in another file have no text.
    made = (here / "page.html").read_text("utf-8")
    made = made.replace("/*player.js*/", pathlib.Path(player).read_text("utf-8").replace("</script", "<\\/script"))
    made = made.replace("/*cast.js*/", f"const cast = {text};")
    pathlib.Path(path).write_text(made, "utf-8")


class Browser:
    """Chromium over its debugging pipe: JSON messages that end in NUL, on the descriptors 3 and 4."""

    def __init__(self, program, profile):
        to_read, self.write = os.pipe()
        self.read, to_write = os.pipe()
        # Only these two are passed on; whatever numbers they have here, they are 3 and 4 there.
        launcher = 'exec 3<&"$1" 4>&"$2"; shift 2; exec "$@"'
        # The page is ours and loads nothing, so no sandbox is needed.
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self.process = subprocess.Popen(
            ["bash", "-c", launcher, "bash", str(to_read), str(to_write), program, *flags],
            pass_fds=(to_read, to_write), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(to_write)
        self.buffer = b""
        self.last = 0

    def call(self, method, session=None, **params):
        self.last += 1
        message = {"id": self.last, "method": method, "params": params}
        if session:
            message["sessionId"] = session
        os.write(self.write, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.buffer:
                piece = os.read(self.read, 65536)
                assert piece, "the browser ended"
                self.buffer += piece
            answer, self.buffer = self.buffer.split(b"\0", 1)
            answer = json.loads(answer)
            if answer.get("id") == self.last:
                assert "error" not in answer, answer
                return answer["result"]

    def close(self):
        os.close(self.write)
        os.close(self.read)
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def screen(expected, page, program):
    watch(expected, page, program, "look()")


# As `look` of page.html; a page of ours plays when somebody asks it to.
OURS = """(() => {
    if (document.readyState !== 'complete' || location.protocol !== 'file:') return ['loading', ''];
    if (typeof AsciinemaPlayer === 'undefined' || !window.player) return ['failed', 'no player'];
    if (window.hacked) return ['failed', 'a script of the recording ran'];
    if (!window.started) { window.started = true; player.play(); }
    const state = document.documentElement.dataset.state || 'playing';
    const lines = [...document.querySelectorAll('.ap-line')].map((line) => line.textContent.trimEnd());
    const loaded = performance.getEntriesByType('resource').filter((e) => !/^(data|blob):/.test(e.name)).map((e) => e.name);
    if (loaded.length) return ['failed', 'loaded ' + loaded];
    return [state.startsWith('failed') ? 'failed' : state, state.startsWith('failed') ? state : lines.join('\\n').trimEnd()];
})()"""


def ours(expected, page, program):
    watch(expected, page, program, OURS)


def watch(expected, page, program, look):
    expected = pathlib.Path(expected).read_text("utf-8")
    guard = time.monotonic() + 60
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(program, profile)
        try:
            target = browser.call("Target.createTarget", url=pathlib.Path(page).resolve().as_uri())["targetId"]
            session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
            state = shown = ""
            # What is drawn comes some frames behind the events, so this asks until it is right.
            while (state, shown) != ("ended", expected):
                assert state != "failed" and time.monotonic() < guard, f"{state}:\n{shown}\nexpected:\n{expected}"
                time.sleep(0.05)
                result = browser.call("Runtime.evaluate", session, expression=look, returnByValue=True)["result"]
                state, shown = result.get("value") or ("", "")
        finally:
            browser.close()


{"convert": convert, "page": page, "screen": screen, "ours": ours}[sys.argv[1]](*sys.argv[2:])
