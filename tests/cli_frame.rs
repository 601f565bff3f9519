//! The frame of the program: help, suggestions, where options come from, errors that name the place.

mod cli_support;

use cli_support::*;

const COMMANDS: [&str; 8] = ["serve", "record", "login-shell", "play", "ls", "cat", "join", "demo"];

#[test]
fn every_command_explains_itself() {
    let (status, overview, _) = run(&["--help"]);
    assert_eq!(status, 0);
    for name in COMMANDS {
        let (status, help, _) = run(&[name, "--help"]);
        assert_eq!(status, 0, "{name}");
        assert!(overview.contains(&format!("  {name} ")), "{overview}");
        for part in ["usage: castkeep ", "options:", "exit status:"] {
            assert!(help.contains(part), "{name}: {part} is not in\n{help}");
        }
        // Whoever logs in does not choose the file.
        assert_eq!(help.contains("--config FILE"), name != "login-shell", "{help}");
        // Examples are for copying, so they are not broken.
        let text = help.split("\nexamples:").next().unwrap_or_default();
        assert!(text.lines().all(|l| l.chars().count() <= 110), "{name}: long lines in\n{text}");
        assert_eq!(run(&["help", name]).1, help);
        assert_eq!(run(&[name, "-h"]).1, help);
    }
    assert_eq!(run(&["--version"]).1, format!("castkeep {}\n", env!("CARGO_PKG_VERSION")));
}

#[test]
fn what_is_mistyped_gets_a_suggestion() {
    for (args, wanted) in [
        (&["recrod"][..], "did you mean `record`?"),
        (&["plya"], "did you mean `play`?"),
        (&["serve", "--lisen", "x"], "did you mean `--listen`?"),
        (&["play", "--sped=2"], "did you mean `--speed`?"),
        (&["frobnicate"], "there is no command `frobnicate`"),
        (&["--frobnicate"], "there is no option"),
        (&["play", "-z"], "has no option `-z`"),
        (&["play", "--speed"], "missing argument"),
        (&["play", "--speed", "fast", "x"], "--speed: `fast` is not a number above 0"),
        (&["play", "--speed", "0", "x"], "is not a number above 0"),
        (&["play", "--idle-limit", "1 parsec", "x"], "is not a length of time"),
        (&["play", "--speed", "1", "--speed", "2", "x"], "given twice"),
        (&["ls", "--state", "odd", "."], "is not one of live, sealed"),
        (&["ls", "--since", "yesterday", "."], "is not a time"),
        (&["play"], "usage: castkeep play"),
        (&["ls"], "which directory?"),
    ] {
        let (status, out, err) = run(args);
        assert_eq!((status, out.as_str()), (2, ""), "{args:?}: {err}");
        assert!(err.starts_with("castkeep: ") && err.contains(wanted), "{args:?}: {err}");
        assert_eq!(err.lines().count(), 1, "{err}");
    }
    assert_eq!(run(&[]).0, 2);
}

#[test]
fn names_from_outside_are_printed_without_control_characters() {
    for args in [
        &["\x1b]0;x\x07"][..],
        &["play", "/no\x1b[2J"],
        &["play", "--\x1b[2J"],
        &["ls", "/no\x1b[2J"],
    ] {
        let (status, out, err) = run(args);
        assert_ne!(status, 0);
        assert_plain(&out);
        assert_plain(&err);
    }
}

#[test]
fn a_wrong_configuration_names_the_place() {
    let dir = Temp::new("config");
    let good = dir.file("good.cast", cast("\"width\":80,\"height\":24", &[]));
    for (content, wanted) in [
        ("{\n  # no\n}", ":2:3: comments begin with //"),
        ("{\n /* never", ":2:2: this comment does not end"),
        ("{\"play\": {\"speed\": 1,\n  \"speed\": 2}}", ":2:3: the key `speed` stands here twice"),
        (
            "{\n  \"play\": {\n    \"sped\": 2\n  }\n}",
            ":3:5: `castkeep play` has no option `sped`; did you mean `speed`?",
        ),
        ("{\"pay\": {}}", ":1:2: there is no section `pay`; did you mean `play`?"),
        ("{\"play\": {\"raw\": 3}}", "must be true or false"),
        ("{\"play\": {\"speed\": []}}", "must be a string or a number"),
        ("{\"play\": [1]}", ":1:2: must be an object"),
        ("{\"play\" {}}", ":1:9: "),
        ("[]", ":1:1: the file must hold one object"),
        ("{\"play\": {\"speed\": \"x\"}}", "`x` is not a number above 0"),
    ] {
        let config = dir.file("c.hujson", content);
        let (status, _, err) = run(&["play", "--config", text(&config), text(&good)]);
        assert_eq!(status, 2, "{content}: {err}");
        assert!(err.contains(&format!("{}", config.display())), "{err}");
        assert!(err.contains(wanted), "{content}: {err}");
    }
    let (status, _, err) = run(&["play", "--config", "/no/such/file", text(&good)]);
    assert!(status == 2 && err.contains("/no/such/file"), "{err}");
}

#[test]
fn the_command_line_goes_before_the_environment_before_the_file() {
    let dir = Temp::new("precedence");
    let config = dir.file(
        "c.hujson",
        "// all commands\n{\"play\": {\"raw\": true, /* fast */ \"speed\": 1000,},}",
    );
    let config = text(&config);
    let event = event(0.0, "o", "\u{1b}]0;x\u{7}y");
    let file = dir.file("a.cast", cast("\"width\":80,\"height\":24", &[&event]));
    let file = text(&file);
    let raw = "\u{1b}]0;x\u{7}y";
    assert_eq!(run(&["play", file]).1, "y");
    assert_eq!(run(&["play", "--config", config, file]).1, raw);
    let with = |name: &str, value: &str, args: &[&str]| {
        said(castkeep(args).env("CASTKEEP_CONFIG", config).env(name, value).output().unwrap())
    };
    assert_eq!(with("X", "", &["play", file]).1, raw);
    assert_eq!(with("CASTKEEP_PLAY_RAW", "0", &["play", file]).1, "y");
    assert_eq!(with("CASTKEEP_PLAY_RAW", "0", &["play", "--raw", file]).1, raw);
    let (status, _, err) = with("CASTKEEP_PLAY_SPEED", "x", &["play", file]);
    assert!(status == 2 && err.contains("$CASTKEEP_PLAY_SPEED: `x` is not"), "{err}");
    assert_eq!(with("CASTKEEP_PLAY_SPEED", "x", &["play", "--speed", "2", file]).0, 0);
}
