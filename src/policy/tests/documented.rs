//! What Tailscale's public documentation of the policy file says by examples, with names of our own.

use super::super::ssh_tests;
use super::super::{CheckPeriod, Verdict, ssh::SshPrincipal};
use super::super::{CompileOptions, Recorders, compile};
use super::{TAGS, nodes, policy, rule_of, verdict, with_rules};
use crate::time::Span;

fn check_of(verdict: Verdict) -> Option<CheckPeriod> {
    match verdict {
        Verdict::Accept(grant) => grant.check,
        Verdict::Reject(why) => panic!("{why}"),
    }
}

#[test]
fn the_broadest_policy() {
    let policy = with_rules(
        r#"{"action":"accept","src":["autogroup:member"],"dst":["autogroup:self"],"users":["root","autogroup:nonroot"]},
           {"action":"accept","src":["autogroup:member"],"dst":["tag:prod"],"users":["root","autogroup:nonroot"]},
           {"action":"accept","src":["tag:ci"],"dst":["tag:prod"],"users":["root","autogroup:nonroot"]}"#,
    );
    for user in ["root", "ada", "anybody"] {
        assert_eq!(rule_of(&policy, "ada-one", "ada-two", user), 1);
        assert_eq!(rule_of(&policy, "ada-one", "ada-one", user), 1);
        assert_eq!(rule_of(&policy, "ben", "web", user), 2);
        assert_eq!(rule_of(&policy, "ci", "db", user), 3);
        assert_eq!(
            rule_of(&policy, "ben", "ada-two", user),
            0,
            "never onto a device of another user"
        );
        assert_eq!(rule_of(&policy, "ci", "ada-two", user), 0);
        assert_eq!(rule_of(&policy, "web", "db", user), 0);
        assert_eq!(rule_of(&policy, "ben", "ci", user), 0);
    }
}

#[test]
fn own_devices_as_anybody_but_root() {
    let policy = with_rules(
        r#"{"action":"accept","src":["autogroup:member"],"dst":["autogroup:self"],"users":["autogroup:nonroot"]}"#,
    );
    assert_eq!(rule_of(&policy, "ada-one", "ada-two", "ada"), 1);
    assert_eq!(rule_of(&policy, "ada-one", "ada-two", "root"), 0);
    assert_eq!(rule_of(&policy, "ada-one", "web", "ada"), 0);
}

#[test]
fn a_group_onto_production() {
    let policy = policy(
        r#"{"groups": {"group:sre": ["ada@example.com", "ben@example.com"]},
            "tagOwners": {"tag:prod": ["group:sre"]},
            "grants": [{"src": ["group:sre"], "dst": ["tag:prod"], "ip": ["*"]}],
            "ssh": [{"action":"accept","src":["group:sre"],"dst":["tag:prod"],"users":["ubuntu","root"]}]}"#,
    );
    assert_eq!(rule_of(&policy, "ada-one", "web", "ubuntu"), 1);
    assert_eq!(rule_of(&policy, "ben", "db", "root"), 1);
    assert_eq!(rule_of(&policy, "ben", "db", "ben"), 0);
    assert_eq!(rule_of(&policy, "cleo", "web", "ubuntu"), 0);
    assert_eq!(policy.owners("tag:prod"), ["group:sre"]);
}

#[test]
fn accounts_named_like_logins() {
    let policy = with_rules(
        r#"{"action":"accept","src":["user:*@example.com"],"dst":["tag:prod"],"users":["localpart:*@example.com"]}"#,
    );
    assert_eq!(rule_of(&policy, "ada-one", "web", "ada"), 1);
    assert_eq!(rule_of(&policy, "ben", "web", "ben"), 1);
    assert_eq!(rule_of(&policy, "ben", "web", "ada"), 0);
    assert_eq!(rule_of(&policy, "cleo", "web", "cleo"), 0, "another domain");
    // The domain of src and that of users are two things.
    let policy = with_rules(
        r#"{"action":"accept","src":["autogroup:member"],"dst":["tag:prod"],"users":["localpart:*@example.com"]}"#,
    );
    assert_eq!(rule_of(&policy, "cleo", "web", "cleo"), 0);
    assert_eq!(rule_of(&policy, "ben", "web", "ben"), 1);
}

#[test]
fn rules_that_check_come_before_those_that_accept() {
    let policy = policy(&format!(
        r#"{{"groups": {{"group:devops": ["ada@example.com"]}}, {TAGS}, "ssh": [
            {{"action":"accept","src":["ada@example.com","ben@example.com"],"dst":["tag:prod"],"users":["root"]}},
            {{"action":"check","src":["group:devops"],"dst":["tag:prod"],"users":["root"]}}]}}"#
    ));
    assert_eq!(rule_of(&policy, "ada-one", "web", "root"), 2);
    assert_eq!(rule_of(&policy, "ben", "web", "root"), 1);
    let twelve_hours = CheckPeriod::For(Span::from_secs(12 * 3600));
    assert_eq!(check_of(verdict(&policy, "ada-one", "web", "root")), Some(twelve_hours));
    assert_eq!(check_of(verdict(&policy, "ben", "web", "root")), None);
}

#[test]
fn periods_of_checks() {
    for (text, period) in [
        ("20h", CheckPeriod::For(Span::from_secs(20 * 3600))),
        ("1m", CheckPeriod::For(Span::from_secs(60))),
        ("always", CheckPeriod::Always),
    ] {
        let policy = with_rules(&format!(
            r#"{{"action":"check","src":["autogroup:member"],"dst":["autogroup:self"],"users":["root"],"checkPeriod":"{text}"}}"#
        ));
        assert_eq!(check_of(verdict(&policy, "ada-one", "ada-two", "root")), Some(period));
    }
}

#[test]
fn different_recorders_and_the_first_listed_enforcement() {
    let policy = with_rules(
        r#"{"action":"accept","src":["ada@example.com"],"dst":["tag:prod"],"users":["root"],"recorder":["tag:rec"],"enforceRecorder":false},
           {"action":"accept","src":["autogroup:member"],"dst":["tag:prod"],"users":["root"],"recorder":["tag:rec"],"enforceRecorder":true},
           {"action":"accept","src":["autogroup:member"],"dst":["tag:ci"],"users":["root"],"recorder":["tag:ci"]},
           {"action":"accept","src":["autogroup:member"],"dst":["tag:rec"],"users":["root"]}"#,
    );
    let grant = |src, dst| match verdict(&policy, src, dst, "root") {
        Verdict::Accept(grant) => grant,
        Verdict::Reject(why) => panic!("{why}"),
    };
    let open = grant("ada-one", "web");
    assert!(open.record && !open.enforced);
    assert_eq!((open.reject_message, open.terminate_message), (None, None));
    let closed = grant("ben", "web");
    assert!(closed.record && closed.enforced);
    assert!(closed.reject_message.is_some() && closed.terminate_message.is_some());
    let addresses: Vec<_> =
        grant("ben", "ci").recorders.iter().map(|r| r.address.to_string()).collect();
    assert_eq!(addresses, ["100.64.0.13:80", "[fd7a::13]:80"]);
    let not = grant("ben", "rec1");
    assert!(!not.record && not.recorders.is_empty());
}

#[test]
fn tests_of_the_documentation() {
    let policy = policy(&format!(
        r#"{{"hosts": {{"server": "100.64.0.11"}}, {TAGS}, "ssh": [
            {{"action":"accept","src":["ben@example.com"],"dst":["tag:prod"],"users":["ben"]}},
            {{"action":"check","src":["ben@example.com"],"dst":["tag:prod"],"users":["admin"]}}],
          "sshTests": [
            {{"src":"ben@example.com","dst":["server"],"accept":["ben"],"check":["admin"],"deny":["root"]}},
            {{"src":"ben@example.com","dst":["server"],"accept":["admin"]}},
            {{"src":"ben@example.com","dst":["server"],"accept":["root"],"check":["ben"],"deny":["ben"]}},
            {{"src":"100.64.0.3","dst":["server"],"accept":["ben"]}},
            {{"src":"tag:ci","dst":["tag:prod"],"deny":["ben","root"]}},
            {{"src":"zoe@example.com","dst":["tag:none"],"deny":["root"]}},
            {{"src":"100.64.9.9","dst":["server"],"deny":["root"]}}]}}"#
    ));
    let outcomes = ssh_tests::run(&policy, &nodes());
    let passed: Vec<bool> = outcomes.iter().map(ssh_tests::TestOutcome::has_passed).collect();
    assert_eq!(passed, [true, true, false, true, true, true, false]);
    assert_eq!(
        outcomes[2].to_string().lines().collect::<Vec<_>>(),
        [
            "7:13: test 3: FAILED: ben.example to web.example as \"root\" is closed, not open",
            "7:13: test 3: FAILED: ben.example to web.example as \"ben\" is open, not open behind a check",
            "7:13: test 3: FAILED: ben.example to web.example as \"ben\" is open, not closed",
        ]
    );
    assert_eq!(outcomes[0].to_string(), "5:13: test 1: passed");
    assert_eq!(outcomes[6].failures, ["no node has the address 100.64.9.9"]);
    // Both nodes with the tag, from the one with the other.
    assert_eq!(outcomes[4].questions, 4);
}

#[test]
fn a_test_can_be_about_own_nodes_and_groups() {
    let policy = policy(
        r#"{"groups": {"group:two": ["ada@example.com", "zoe@example.com"], "group:none": []},
            "tagOwners": {"tag:ci": []},
            "ssh": [{"action":"accept","src":["autogroup:member"],"dst":["autogroup:self"],"users":["autogroup:nonroot"]}],
            "sshTests": [
              {"src":"group:two","dst":["autogroup:self"],"accept":["x"],"deny":["root"]},
              {"src":"ben@example.com","dst":["ada@example.com"],"deny":["x"]},
              {"src":"tag:ci","dst":["autogroup:self"],"deny":["x"]},
              {"src":"group:none","dst":["autogroup:self"],"deny":["x"]}]}"#,
    );
    let outcomes = ssh_tests::run(&policy, &nodes());
    assert!(outcomes[0].has_passed(), "{}", outcomes[0]);
    // One node of each source; two of ada as destinations, an imagined one of zoe.
    assert_eq!(outcomes[0].questions, (2 + 1) * 2);
    assert!(outcomes[1].has_passed());
    assert_eq!(outcomes[2].failures, ["\"autogroup:self\" of a node with a tag is nobody's"]);
    assert_eq!(outcomes[3].failures, ["group:none has no members"]);
}

/// The forms that Tailscale's own service sends for accounts.
#[test]
fn accounts_in_compiled_form() {
    let nodes = nodes();
    for (users, expected) in [
        (r#"["root"]"#, "root=root"),
        (r#"["autogroup:nonroot"]"#, "*== root="),
        (r#"["autogroup:nonroot","root"]"#, "*== root=root"),
        (r#"["root","autogroup:nonroot","ubuntu"]"#, "*== root=root ubuntu=ubuntu"),
    ] {
        let policy = with_rules(&format!(
            r#"{{"action":"accept","src":["ben@example.com"],"dst":["tag:prod"],"users":{users},"acceptEnv":["GIT_*"]}}"#
        ));
        let dst = nodes.find("web").expect("a node");
        let (compiled, _, _) =
            compile(&policy, &nodes, &Recorders::default(), dst, &CompileOptions::default());
        let [Some(rule)] = compiled.rules.as_slice() else { panic!("{compiled:?}") };
        let map: Vec<_> = rule.ssh_users.iter().map(|(from, to)| format!("{from}={to}")).collect();
        assert_eq!(map.join(" "), expected);
        assert_eq!(rule.accept_env, ["GIT_*"]);
        let who = SshPrincipal { user_login: "ben@example.com".into(), ..SshPrincipal::default() };
        assert_eq!(rule.principals, [Some(who)]);
        let action = rule.action.as_ref().expect("an action");
        assert!(action.accept && action.allow_agent_forwarding && !action.reject);
        assert!(action.recorders.is_empty() && action.on_recording_failure.is_none());
    }
}
