//! `play`, `ls`, `cat` and `join` on casts of all kinds, hostile ones too.
#![allow(clippy::disallowed_methods)]

mod cli_support;

use std::time::{Duration, Instant};

use cli_support::*;

const SIZE: &str = "\"width\":40,\"height\":5";

/// Everything that a recording may try on the terminal of who looks at it.
const HOSTILE: &str = "a\x1b]52;c;aGk=\x07\x1b]0;title\x1b\\\x1b[6n\x1b[c\x1bP+q544e\x1b\\\x1b[?1003h\x1b[?2004h\x1b[5i\x1b[21t\u{9d}2;t\u{9c}\x05\x1b_x\x1b\\\x1b[>4;2mb";

#[test]
fn playing_takes_the_time_that_is_asked_for() {
    let dir = Temp::new("time");
    let events = [event(0.0, "o", "one "), event(3600.0, "o", "two "), event(3600.4, "o", "three")];
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let file = dir.file("a.cast", cast(SIZE, &events));
    let file = text(&file);
    let timed = |args: &[&str]| {
        let begun = Instant::now();
        let (status, out, err) = run(&[&["play"], args, &[file]].concat());
        assert_eq!((status, out.as_str(), err.as_str()), (0, "one two three", ""));
        begun.elapsed()
    };
    assert!(timed(&["--speed", "1000000"]) < Duration::from_secs(20));
    // What is left after the jump is 0.4 s, at least.
    let seek = timed(&["--seek", "1h"]);
    assert!(seek >= Duration::from_millis(400) && seek < Duration::from_secs(20), "{seek:?}");
    let idle = timed(&["--idle-limit", "200ms"]);
    assert!(idle >= Duration::from_millis(400) && idle < Duration::from_secs(20), "{idle:?}");
    // Version 3 has the time since the event before.
    let v3 = "{\"version\":3,\"term\":{\"cols\":80,\"rows\":24}}\n[0.2,\"o\",\"x\"]\n[0.2,\"o\",\"y\"]\n";
    let file = dir.file("v3.cast", v3);
    let begun = Instant::now();
    assert_eq!(run(&["play", text(&file)]).1, "xy");
    assert!(begun.elapsed() >= Duration::from_millis(400));
}

#[test]
fn raw_gives_the_exact_bytes() {
    let dir = Temp::new("raw");
    let events = [
        "[0,\"o\",\"ab\u{fffd}c\"]",
        "[0,\"b\",\"2:/2M=\"]",
        "[9,\"i\",\"typed\"]",
        "[99,\"o\",\"\\u0000\\u001b]0;x\\u0007\"]",
    ];
    let file = dir.file("a.cast", cast(SIZE, &events));
    let output = castkeep(&["play", "--raw", text(&file)]).output().unwrap();
    assert_eq!(output.stdout, b"ab\xffc\0\x1b]0;x\x07");
    assert!(output.status.success());
}

#[test]
fn hostile_recordings_leave_the_terminal_alone() {
    let dir = Temp::new("hostile");
    let evil = serde_json::json!({"version": 2, "width": 40, "height": 5, "command": HOSTILE, "srcNodeUser": HOSTILE,
        "sshUser": "\u{202e}x", "localUser": HOSTILE, "castkeep": {"recording": HOSTILE, "node": HOSTILE}});
    let events = [
        event(0.0, "o", HOSTILE),
        event(0.0, "m", HOSTILE),
        event(0.0, "x", HOSTILE),
        event(0.0, "r", HOSTILE),
    ];
    let content = format!("{evil}\n{}\n{HOSTILE}\n", events.join("\n"));
    let file = dir.file("node/evil\x1b[2J.cast", content);
    let (status, out, err) = run(&["play", text(&file)]);
    assert_eq!((status, out.as_str()), (0, "ab"), "{err}");
    assert_plain(&err);
    for args in [&["ls"][..], &["ls", "--json"], &["cat"], &["join", "--check"]] {
        let target = if args[0] == "ls" { text(&dir.0) } else { text(&file) };
        let (status, out, err) = run(&[args, &[target]].concat());
        assert_eq!(status, 0, "{args:?} {err}");
        assert_plain(&out);
        assert_plain(&err);
        assert!(!out.contains('\u{202e}') && !err.contains('\u{202e}'));
    }
    assert_eq!(run(&["cat", text(&file)]).1, "ab\n");
}

#[test]
fn sizes_of_nothing_and_of_everything() {
    let dir = Temp::new("sizes");
    for (header, resize) in [
        ("0,\"height\":0", "0x0"),
        ("65535,\"height\":65535", "65535x65535"),
        ("99999999999,\"height\":-5", "x"),
    ] {
        let events =
            [event(0.0, "o", "one\r\n"), event(0.0, "r", resize), event(0.0, "o", "two\r\n")];
        let events: Vec<&str> = events.iter().map(String::as_str).collect();
        let file = dir.file("a.cast", cast(&format!("\"width\":{header}"), &events));
        let (status, out, err) = run(&["cat", text(&file)]);
        assert_eq!((status, out.as_str(), err.as_str()), (0, "one\ntwo\n", ""), "{header}");
        assert_eq!(run(&["play", text(&file)]).1, "one\r\ntwo\r\n");
    }
}

#[test]
fn what_is_no_cast_is_told_and_hides_nothing_else() {
    let dir = Temp::new("broken");
    dir.file("n/good.cast", cast(SIZE, &[&event(0.0, "o", "fine")]));
    let mut long = String::from("{\"version\":2,\"command\":\"");
    long.push_str(&"x".repeat(5 << 20));
    for (name, content, why) in [
        ("empty", "", "empty"),
        ("noise", "noise\n", "not the header of a cast"),
        ("torn", "{\"version\":2", "it has no end"),
        ("v1", "{\"version\":1,\"stdout\":[]}\n", "version 1 is not supported"),
        ("long", &long, "longer than"),
    ] {
        let file = dir.file(&format!("n/{name}.cast"), content);
        for command in ["play", "cat", "join"] {
            let (status, out, err) = run(&[command, text(&file)]);
            assert_eq!((status, out.as_str()), (1, ""), "{command} {name}: {err}");
            assert!(err.contains(why) && err.contains(name), "{command} {name}: {err}");
        }
        let list = run(&["ls", text(&dir.0)]).1;
        assert!(list.lines().any(|l| l.contains("broken") && l.contains(why)), "{name}: {list}");
        assert!(list.contains("n/good"), "{list}");
    }
    let (status, _, err) = run(&["play", "/no/such"]);
    assert!(status == 1 && err.contains("/no/such"), "{err}");
}

#[test]
fn a_torn_last_line_and_odd_lines_are_left_out_and_told() {
    let dir = Temp::new("torn");
    let mut content =
        cast(SIZE, &[&event(0.0, "o", "one "), "not an event", "[\"x\"]", &event(0.0, "o", "two")]);
    content.push_str("[0.5,\"o\",\"thr");
    let file = dir.file("a.cast", &content);
    for command in ["play", "cat"] {
        let (status, out, err) = run(&[command, text(&file)]);
        assert_eq!((status, out.trim_end()), (0, "one two"));
        assert!(
            err.contains("2 lines are no events") && err.contains("last line is torn"),
            "{err}"
        );
        assert_eq!(run(&[command, "--quiet", text(&file)]).2, "");
    }
}

#[test]
fn cat_prints_what_was_shown() {
    let dir = Temp::new("cat");
    let mut events = vec![
        event(0.0, "o", "$ sl\u{8}\u{8}ls\r\n\u{1b}[31mred\u{1b}[0m \u{1b}[1mbold\u{1b}[0m\r\n"),
        event(1.0, "o", "$ vi\r\n\u{1b}[?1049h\u{1b}[2J\u{1b}[Hfile\r\n~"),
        event(3.5, "o", "\u{1b}[?1049l$ seq\r\n"),
    ];
    events.extend((1..=50).map(|i| event(4.0, "o", &format!("{i}\r\n"))));
    events.push(event(4.5, "o", &format!("{}\r\n", "w".repeat(100))));
    events.push(event(5.0, "m", "castkeep:gap bytes=77 ms=1500"));
    events.push(event(5.0, "o", "end"));
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let file = dir.file("a.cast", cast(SIZE, &events));
    let mut wanted = String::from(
        "$ ls\nred bold\n$ vi\n[a full-screen program, 2.5 s; its last screen:]\n| file\n| ~\n$ seq\n",
    );
    (1..=50).for_each(|i| wanted.push_str(&format!("{i}\n")));
    wanted.push_str(&"w".repeat(100));
    wanted.push_str("\n[77 bytes in 1.5 s were not recorded]\nend\n");
    assert_eq!(run(&["cat", text(&file)]).1, wanted);
    assert!(!run(&["cat", "--no-screens", text(&file)]).1.contains("full-screen"));
    // Of a pipe: no carriage returns, and lines longer than any terminal.
    let pipe = dir.file(
        "p.cast",
        cast(
            "\"width\":0,\"height\":0",
            &[&event(0.0, "o", &format!("a\n{}\nc\n", "b".repeat(500)))],
        ),
    );
    assert_eq!(run(&["cat", text(&pipe)]).1, format!("a\n{}\nc\n", "b".repeat(500)));
}

/// Three parts of one stream, cut at two offsets; each but the first repeats the header line.
fn parts(dir: &Temp, cuts: &[(usize, usize)], change: Option<usize>) -> (Vec<String>, String) {
    let id = "0123456789abcdef0123456789abcdef";
    let head = format!(
        "{SIZE},\"castkeep\":{{\"recording\":\"{id}\",\"node\":\"n\",\"kind\":\"shell\",\"client\":\"c\"}}"
    );
    let events: Vec<String> = (0..100).map(|i| event(0.0, "o", &format!("line {i}\r\n"))).collect();
    let events: Vec<&str> = events.iter().map(String::as_str).collect();
    let whole = cast(&head, &events);
    let starts: Vec<usize> =
        std::iter::once(0).chain(whole.match_indices('\n').map(|(i, _)| i + 1)).collect();
    let mut files = Vec::new();
    for (n, (from, to)) in cuts.iter().enumerate() {
        let (from, to) = (starts[*from], starts[*to]);
        let mut part = whole[from..to].to_owned();
        if let (Some(line), 1) = (change, n) {
            part = part.replace(&format!("line {line}\\"), "LINE X\\");
        }
        if from > 0 {
            let continues = format!(
                "{head},\"castkeepContinues\":{{\"recording\":\"{id}\",\"offset\":{from}}}"
            );
            part = cast(&continues, &[]) + &part;
        }
        files.push(text(&dir.file(&format!("{n}/n/p{n}.cast"), part)).to_owned());
    }
    (files, whole)
}

#[test]
fn join_makes_one_stream_or_says_where_it_cannot() {
    let dir = Temp::new("join");
    let (_, whole) = parts(&dir, &[(0, 40), (30, 80), (80, 101)], None);
    let dirs: Vec<String> = (0..3).map(|n| text(&dir.0.join(n.to_string())).to_owned()).collect();
    let dirs: Vec<&str> = dirs.iter().map(String::as_str).collect();
    let (status, out, err) = run(&[&["join"], &dirs[..], &["0123"]].concat());
    assert_eq!((status, out == whole), (0, true), "{err}");
    assert!(err.contains("3 parts"), "{err}");
    let to = dir.0.join("whole.cast");
    let written = run(&[&["join", "-o", text(&to)], &dirs[..], &["0123"]].concat());
    assert_eq!((written.0, std::fs::read_to_string(&to).unwrap() == whole), (0, true));
    let again = run(&[&["join", "-o", text(&to)], &dirs[..], &["0123"]].concat());
    assert!(again.0 == 1 && again.2.contains("--force"), "{again:?}");
    std::fs::remove_file(&to).unwrap();

    let played = run(&[&["play"], &dirs[..], &["0123"]].concat()).1;
    assert_eq!(played, (0..100).map(|i| format!("line {i}\r\n")).collect::<String>());
    let list = run(&[&["ls", "--json"], &dirs[..]].concat()).1;
    assert_eq!(list.lines().count(), 1, "{list}");

    // Without the middle: a hole that is named, no file, and a play that goes on.
    let ends = [dirs[0], dirs[2]];
    let (status, _, err) = run(&[&["join", "-o", text(&to)], &ends[..], &["0123"]].concat());
    assert!(status == 1 && err.contains("are missing"), "{err}");
    assert!(!to.exists() && std::fs::read_dir(&dir.0).unwrap().count() == 3);
    let (status, out, err) = run(&[&["play"], &ends[..], &["0123"]].concat());
    assert_eq!((status, out.lines().count()), (0, 60), "{err}");
    assert!(err.contains("are missing"), "{err}");

    let dir = Temp::new("diverge");
    let (files, whole) = parts(&dir, &[(0, 40), (30, 101)], Some(35));
    let (status, out, err) = run(&["join", &files[0], &files[1]]);
    let offset = whole.find("line 35").unwrap();
    assert!(status == 1 && err.contains(&format!("at offset {offset} ")), "{err}");
    assert_eq!(out, whole[..offset]);
    assert_eq!(run(&["join", "--check", &files[0], &files[1]]).0, 1);
    assert_eq!(run(&["join", "--check", &files[0]]).0, 0);
}

#[test]
fn ls_json_is_one_object_a_line() {
    let dir = Temp::new("json");
    parts(&dir, &[(0, 101)], None);
    let (status, out, _) = run(&["ls", "--json", text(&dir.0.join("0"))]);
    assert_eq!((status, out.lines().count()), (0, 1));
    let object: serde_json::Value = serde_json::from_str(&out).unwrap();
    for (key, is) in [
        ("id", object["id"].is_string()),
        ("recording", object["recording"] == "0123456789abcdef0123456789abcdef"),
        ("state", object["state"] == "foreign"),
        ("bytes", object["bytes"].as_u64().unwrap_or(0) > 2000),
        ("node", object["node"] == "n"),
        ("kind", object["kind"] == "shell"),
        ("width", object["width"] == 40),
        ("parts", object["parts"][0]["start"] == 0),
        ("file", object["parts"][0]["file"].is_string()),
    ] {
        assert!(is, "{key}: {out}");
    }
    let filtered =
        |args: &[&str]| run(&[&["ls", "--json"], args, &[text(&dir.0.join("0"))]].concat()).1;
    assert_eq!(filtered(&["--node", "n"]), out);
    assert_eq!(filtered(&["--node", "other"]), "");
    assert_eq!(filtered(&["--state", "sealed"]), "");
    assert_eq!(filtered(&["--user", "nobody"]), "");
}

#[test]
fn an_id_alone_is_looked_up_in_the_own_store() {
    let dir = Temp::new("own");
    parts(&dir, &[(0, 101)], None);
    let store = dir.0.join("0");
    let output = castkeep(&["cat", "0123"]).env("CASTKEEP_SERVE_DST", &store).output().unwrap();
    assert!(said(output).1.starts_with("line 0\nline 1\n"));
    let config = dir.file("c.hujson", serde_json::json!({"serve": {"dst": store}}).to_string());
    assert!(run(&["cat", "--config", text(&config), "0123"]).1.starts_with("line 0\n"));
    assert_eq!(run(&["ls", "--config", text(&config)]).1.lines().count(), 2);
    for (id, wanted) in
        [("012", "at least the first four"), ("ffff", "there is no recording `ffff`")]
    {
        let (status, _, err) = run(&["cat", text(&store), id]);
        assert!(status == 1 && err.contains(wanted), "{err}");
    }
}
