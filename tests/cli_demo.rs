//! The story of `make demo`, end to end.

mod cli_support;

use cli_support::*;

#[test]
fn the_demonstration_loses_nothing() {
    let dir = Temp::new("demo");
    let output = castkeep(&["demo"]).env("TMPDIR", &dir.0).output().unwrap();
    let (status, out, err) = said(output);
    assert_eq!(status, 0, "{out}{err}");
    for wanted in
        ["killed with SIGKILL", "equal, byte for byte", "nothing was lost", "castkeep join"]
    {
        assert!(out.contains(wanted), "{wanted} is not in\n{out}");
    }
    assert_eq!(std::fs::read_dir(&dir.0).unwrap().count(), 0, "something is left");
}

#[test]
fn what_it_made_can_be_kept() {
    let dir = Temp::new("keep");
    let output =
        castkeep(&["demo", "--keep", "--lines", "20"]).env("TMPDIR", &dir.0).output().unwrap();
    let (status, out, err) = said(output);
    assert_eq!(status, 0, "{out}{err}");
    let kept = std::fs::read_dir(&dir.0).unwrap().next().unwrap().unwrap().path();
    assert!(out.contains(text(&kept)), "{out}");
    let joined = std::fs::read(kept.join("whole.cast")).unwrap();
    let again = castkeep(&["join"]).arg(kept.join("a")).arg(kept.join("b")).output().unwrap();
    assert!(again.status.success() && again.stdout == joined);
}
