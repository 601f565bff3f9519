//! Recorders, messages, compiled forms, explanations.

use super::super::explain::explain;
use super::super::ssh::LocalUser;
use super::super::{
    CompileOptions, Decider, LiveRecorder, Messages, Question, Recorders, Refusal, Registry,
    Subject, Verdict, compile,
};
use super::{nodes, registry, rule_of, verdict, with_rules};

const RECORDED: &str = r#"{"action":"accept","src":["autogroup:member"],"dst":["tag:prod"],"users":["root"],"recorder":["tag:rec"],"enforceRecorder":true}"#;

fn recorders(nodes: &Registry, live: &Recorders, rule: &str) -> (Vec<String>, Vec<String>) {
    let policy = with_rules(rule);
    let (decider, found) = Decider::new(&policy, nodes, live);
    let (src, dst) = (nodes.find("ben").expect("ben"), nodes.find("web").expect("web"));
    let verdict = decider.decide(&Question { src: Subject::Node(src), dst, user: "root" });
    let Verdict::Accept(grant) = verdict else { panic!("{verdict:?}") };
    assert!(grant.record);
    let list = grant.recorders.iter().map(|r| {
        let tls = r.tls.as_ref().map(|name| format!(" {name}")).unwrap_or_default();
        format!("{} {}{tls}", r.group, r.address)
    });
    (list.collect(), found.iter().map(ToString::to_string).collect())
}

fn live(node: &str, tag: &str, addresses: &[&str]) -> LiveRecorder {
    LiveRecorder {
        node: node.into(),
        tags: vec![tag.into()],
        addresses: addresses.iter().map(|a| a.parse().expect("an address")).collect(),
        tls: None,
    }
}

#[test]
fn recorders_come_lowest_address_first_and_ipv4_before_ipv6() {
    let (list, found) = recorders(&nodes(), &Recorders::default(), RECORDED);
    assert_eq!(
        list,
        [
            "0 100.64.0.21:8443 rec1.example",
            "1 100.64.0.22:80",
            "1 [fd7a::21]:80",
            "0 [fd7a::22]:8443 rec1.example",
        ]
    );
    assert_eq!(found, [""; 0]);
}

#[test]
fn what_a_recorder_announces_is_newer_than_the_registry() {
    let announced = Recorders::new(vec![
        live("nRec1", "tag:rec", &["100.64.0.21:9000"]),
        live("elsewhere", "tag:rec", &["127.0.0.9:80", "127.0.0.9:80"]),
        live("other", "tag:ci", &["127.0.0.1:80"]),
    ]);
    let (list, _) = recorders(&nodes(), &announced, RECORDED);
    assert_eq!(
        list,
        ["0 100.64.0.21:9000", "1 100.64.0.22:80", "2 127.0.0.9:80", "1 [fd7a::21]:80"]
    );
}

#[test]
fn silent_and_offline_recorders_are_tried_last() {
    let silent = Recorders::default().with_silent(["nRec1".to_owned()]);
    let (list, _) = recorders(&nodes(), &silent, RECORDED);
    assert_eq!(
        list,
        [
            "0 100.64.0.22:80",
            "0 [fd7a::21]:80",
            "1 100.64.0.21:8443 rec1.example",
            "1 [fd7a::22]:8443 rec1.example",
        ]
    );
    let text = nodes().to_json().replace(r#""id":"nRec1""#, r#""id":"nRec1","online":false"#);
    let (offline, _) = recorders(&registry(&text), &Recorders::default(), RECORDED);
    assert_eq!(offline, list);
}

#[test]
fn a_tag_without_nodes_is_no_recorder_and_told() {
    let none = RECORDED.replace("tag:rec", "tag:none");
    let (list, found) = recorders(&nodes(), &Recorders::default(), &none);
    assert_eq!(list, [""; 0]);
    assert_eq!(
        found,
        ["1:102: warning: no node has \"tag:none\", so there is no recorder: sessions are refused"]
    );
    let (_, found) = recorders(&nodes(), &Recorders::default(), &none.replace("true", "false"));
    assert!(found[0].ends_with("sessions go on unrecorded"), "{found:?}");
    let announced = Recorders::new(vec![live("x", "tag:none", &["127.0.0.1:80"])]);
    let (list, found) = recorders(&nodes(), &announced, &none);
    assert_eq!((list, found), (vec!["0 127.0.0.1:80".to_owned()], Vec::new()));
}

#[test]
fn no_more_recorders_than_a_session_can_try() {
    let many = (0..50).map(|n| live(&format!("r{n}"), "tag:none", &[&format!("127.0.1.{n}:80")]));
    let (list, found) = recorders(
        &nodes(),
        &Recorders::new(many.collect()),
        &RECORDED.replace("tag:rec", "tag:none"),
    );
    assert_eq!(list.len(), 32);
    assert!(
        found[0].contains("stands for 50 addresses, of which the first 32 are used"),
        "{found:?}"
    );
}

#[test]
fn who_is_not_let_in_is_told_which_part_does_not_fit() {
    let policy = with_rules(RECORDED);
    let why = |src, dst, user| match verdict(&policy, src, dst, user) {
        Verdict::Accept(grant) => panic!("{grant:?}"),
        Verdict::Reject(why) => why,
    };
    assert_eq!(why("ben", "web", "ubuntu"), Refusal::NoUser);
    assert_eq!(why("ben", "ci", "root"), Refusal::NoRule);
    assert_eq!(why("ci", "web", "root"), Refusal::NoRule);
    let nodes = nodes();
    let (decider, _) = Decider::new(&policy, &nodes, &Recorders::default());
    let ask = |ip: &str| {
        let src = Subject::Address(ip.parse().expect("an address"));
        let dst = nodes.find("web").expect("web");
        decider.decide(&Question { src, dst, user: "root+password" })
    };
    assert_eq!(ask("100.64.9.9"), Verdict::Reject(Refusal::UnknownSource));
    for known in ["100.64.0.3", "fd7a::3", "::ffff:100.64.0.3"] {
        assert!(
            matches!(ask(known), Verdict::Accept(grant) if grant.local_user == "root"),
            "{known}"
        );
    }
}

#[test]
fn accounts_that_are_root_by_another_name_are_not_let_in_unasked() {
    let policy = with_rules(
        r#"{"action":"accept","src":["ben@example.com"],"dst":["tag:prod"],"users":["autogroup:nonroot"]},
           {"action":"accept","src":["ada@example.com"],"dst":["tag:prod"],"users":["autogroup:nonroot","toor"]}"#,
    );
    let nodes = nodes();
    let (decider, _) = Decider::new(&policy, &nodes, &Recorders::default());
    let accounts = |name: &str| match name {
        "root" | "toor" => LocalUser::Root,
        "ben" => LocalUser::Other,
        _ => LocalUser::Missing,
    };
    let is_in = |src: &str, user: &str| {
        let src = Subject::Node(nodes.find(src).expect("a source"));
        let dst = nodes.find("web").expect("web");
        let verdict = decider.decide_among(&Question { src, dst, user }, &accounts);
        matches!(verdict, Verdict::Accept(_))
    };
    assert!(is_in("ben", "ben"));
    assert!(!is_in("ben", "toor") && !is_in("ben", "root") && !is_in("ben", "nobody"));
    assert!(is_in("ada-one", "toor"), "its name stands in the rule");
    assert!(!is_in("ben", ""));
}

#[test]
fn a_login_never_makes_an_account_root_or_a_wildcard() {
    let nodes = registry(
        r#"{"castkeepNodes": 1, "nodes": [
            {"id": "a", "name": "a", "addresses": ["100.64.0.1"], "user": "root@example.com"},
            {"id": "b", "name": "b", "addresses": ["100.64.0.2"], "user": "*@example.com"},
            {"id": "c", "name": "c", "addresses": ["100.64.0.3"], "user": "x/../y@example.com"},
            {"id": "w", "name": "w", "addresses": ["100.64.0.9"], "tags": ["tag:prod"]}]}"#,
    );
    let policy = with_rules(
        r#"{"action":"accept","src":["autogroup:member"],"dst":["tag:prod"],"users":["localpart:*@example.com"]}"#,
    );
    let (decider, _) = Decider::new(&policy, &nodes, &Recorders::default());
    let dst = nodes.find("w").expect("w");
    for (src, user) in [("a", "root"), ("b", "*"), ("b", "ada"), ("c", "x/../y")] {
        let src = Subject::Node(nodes.find(src).expect("a source"));
        let verdict = decider.decide(&Question { src, dst, user });
        assert_eq!(verdict, Verdict::Reject(Refusal::NoUser), "{user}");
    }
    let (compiled, _, _) =
        compile(&policy, &nodes, &Recorders::default(), dst, &CompileOptions::default());
    assert!(compiled.rules.is_empty(), "{compiled:?}");
}

#[test]
fn roles_are_those_of_the_registry() {
    let policy = with_rules(
        r#"{"action":"accept","src":["autogroup:admin"],"dst":["tag:prod"],"users":["root"]},
           {"action":"accept","src":["autogroup:owner","autogroup:shared"],"dst":["tag:prod"],"users":["x"]}"#,
    );
    assert_eq!(rule_of(&policy, "ada-one", "web", "root"), 1);
    assert_eq!(rule_of(&policy, "ben", "web", "root"), 0);
    let (_, found) = Decider::new(&policy, &nodes(), &Recorders::default());
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(
        found,
        [
            "2:12: warning: \"autogroup:shared\" matches nobody here",
            "2:12: warning: \"autogroup:owner\" matches nobody: the registry gives nobody this role",
        ]
    );
}

#[test]
fn tags_that_nobody_may_give_are_told() {
    let policy = super::policy(
        r#"{"tagOwners": {"tag:prod": [], "tag:rec": [], "tag:data": []}, "ssh": []}"#,
    );
    let (_, found) = Decider::new(&policy, &nodes(), &Recorders::default());
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found, ["warning: \"ci.example\" has \"tag:ci\", which is not in tagOwners"]);
}

// ---- compiled ----

#[test]
fn a_compiled_rule_names_recorders_messages_and_where_to_tell() {
    let nodes = nodes();
    let policy = with_rules(RECORDED);
    let options = CompileOptions {
        notify_url: Some("https://control.example/notify".into()),
        reject_message: "no".into(),
        terminate_message: "end".into(),
        ..CompileOptions::default()
    };
    let dst = nodes.find("web").expect("web");
    let (compiled, infos, found) = compile(&policy, &nodes, &Recorders::default(), dst, &options);
    assert!(found.is_empty());
    let [Some(rule)] = compiled.rules.as_slice() else { panic!("{compiled:?}") };
    let logins: Vec<_> = rule.principals.iter().flatten().map(|p| p.user_login.as_str()).collect();
    assert_eq!(logins, ["ada@example.com", "ben@example.com", "cleo@other.example"]);
    let action = rule.action.as_ref().expect("an action");
    assert_eq!(
        action.recorders.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["100.64.0.21:8443", "100.64.0.22:80", "[fd7a::21]:80", "[fd7a::22]:8443"]
    );
    let failure = action.on_recording_failure.as_ref().expect("what happens then");
    assert_eq!(failure.reject_session_with_message, "no");
    assert_eq!(failure.terminate_session_with_message, "end");
    assert_eq!(failure.notify_url, "https://control.example/notify");
    let info = |address: &str| (infos[address].group, infos[address].tls.as_deref());
    assert_eq!(info("100.64.0.21:8443"), (0, Some("rec1.example")));
    assert_eq!(info("[fd7a::22]:8443"), (0, Some("rec1.example")));
    assert_eq!(info("100.64.0.22:80"), (1, None));
    // Open: nothing is told to the user, but somebody may be told.
    let open = with_rules(&RECORDED.replace("true", "false"));
    let (compiled, _, _) = compile(&open, &nodes, &Recorders::default(), dst, &options);
    let action = compiled.rules[0].as_ref().and_then(|r| r.action.as_ref()).expect("an action");
    let failure = action.on_recording_failure.as_ref().expect("it is to be recorded");
    assert!(failure.reject_session_with_message.is_empty());
    assert!(failure.terminate_session_with_message.is_empty());
    assert!(!failure.notify_url.is_empty());
}

#[test]
fn a_stock_node_refuses_what_must_be_recorded_and_cannot() {
    let nodes = nodes();
    let policy = with_rules(&RECORDED.replace("tag:rec", "tag:none"));
    let dst = nodes.find("web").expect("web");
    let action = |options: &CompileOptions| {
        let (compiled, _, found) = compile(&policy, &nodes, &Recorders::default(), dst, options);
        assert_eq!(found.len(), 1);
        compiled.rules[0].clone().and_then(|rule| rule.action).expect("an action")
    };
    let stock = action(&CompileOptions::default());
    assert!(stock.reject && !stock.accept);
    assert!(stock.message.contains("must be recorded"), "{stock:?}");
    let ours = action(&CompileOptions::for_agents());
    assert!(ours.accept && ours.recorders.is_empty());
    assert!(!ours.on_recording_failure.expect("closed").reject_session_with_message.is_empty());
}

#[test]
fn a_check_is_delegated_or_refused_never_dropped() {
    let nodes = nodes();
    let policy = with_rules(&RECORDED.replace("accept", "check"));
    let dst = nodes.find("web").expect("web");
    let action = |options: &CompileOptions| {
        let (compiled, _, _) = compile(&policy, &nodes, &Recorders::default(), dst, options);
        compiled.rules[0].clone().and_then(|rule| rule.action).expect("an action")
    };
    let refused = action(&CompileOptions::default());
    assert!(refused.reject && !refused.accept && refused.hold_and_delegate.is_empty());
    let url = "https://control.example/check/$SRC_NODE_ID";
    let held = action(&CompileOptions {
        hold_and_delegate: Some(url.into()),
        ..CompileOptions::default()
    });
    assert!(!held.reject && !held.accept);
    assert_eq!(held.hold_and_delegate, url);
    assert_eq!(held.recorders.len(), 4);
}

#[test]
fn principals_can_be_addresses_alone() {
    let nodes = nodes();
    let policy = with_rules(
        r#"{"action":"accept","src":["ada@example.com","tag:ci"],"dst":["tag:prod"],"users":["root","localpart:*@example.com"]}"#,
    );
    let dst = nodes.find("web").expect("web");
    let options = CompileOptions { by_address: true, ..CompileOptions::default() };
    let (compiled, _, _) = compile(&policy, &nodes, &Recorders::default(), dst, &options);
    let of = |rule: usize| -> Vec<&str> {
        let rule = compiled.rules[rule].as_ref().expect("a rule");
        rule.principals.iter().flatten().map(|p| p.node_ip.as_str()).collect()
    };
    assert_eq!(
        of(0),
        ["100.64.0.1", "fd7a::1", "100.64.0.2", "fd7a::2", "100.64.0.13", "fd7a::13"]
    );
    assert_eq!(of(1), ["100.64.0.1", "fd7a::1", "100.64.0.2", "fd7a::2"]);
    let (compiled, _, _) =
        compile(&policy, &nodes, &Recorders::default(), dst, &CompileOptions::default());
    let rule = compiled.rules[0].as_ref().expect("a rule");
    let [Some(ada), Some(ci)] = rule.principals.as_slice() else { panic!("{rule:?}") };
    assert_eq!((ada.user_login.as_str(), ci.node.as_str()), ("ada@example.com", "nCi"));
}

// ---- explained ----

#[test]
fn an_explanation_goes_rule_by_rule() {
    let policy = with_rules(
        r#"{"action":"accept","src":["ada@example.com"],"dst":["tag:prod"],"users":["root"]},
           {"action":"accept","src":["autogroup:member"],"dst":["tag:ci","tag:rec"],"users":["root"]},
           {"action":"accept","src":["autogroup:member"],"dst":["tag:prod"],"users":["ubuntu","localpart:*@other.example"]},
           {"action":"accept","src":["ben@example.com","autogroup:member"],"dst":["tag:data","tag:prod"],"users":["autogroup:nonroot","root"]},
           {"action":"accept","src":["ben@example.com"],"dst":["tag:prod"],"users":["root"]},
           {"action":"check","src":["ben@example.com"],"dst":["autogroup:tagged"],"users":["x"],"checkPeriod":"always"}"#,
    );
    let nodes = nodes();
    let (src, dst) = (nodes.find("ben").expect("ben"), nodes.find("web").expect("web"));
    let normal = |_: &str| LocalUser::Other;
    let reports = explain(&policy, &nodes, src, dst, "root", &normal);
    let lines: Vec<_> = reports.iter().map(ToString::to_string).collect();
    assert_eq!(
        lines,
        [
            "rule 6 (6:12, check always): not for this account, but for x",
            "rule 1 (1:102, accept): not for who comes, but for ada@example.com",
            "rule 2 (2:12, accept): not for this node, but for tag:ci, tag:rec",
            "rule 3 (3:12, accept): not for this account, but for ubuntu, localpart:*@other.example",
            "rule 4 (4:12, accept): decides: src ben@example.com, dst tag:prod, users root",
            "rule 5 (5:12, accept): would match, but a rule before it decided",
        ]
    );
    let reports = explain(&policy, &nodes, src, dst, "ben", &normal);
    assert!(reports[4].to_string().ends_with("users autogroup:nonroot"), "{}", reports[4]);
    let refused = explain(&policy, &nodes, nodes.find("ci").expect("ci"), dst, "root", &normal);
    assert!(refused.iter().all(|r| !r.to_string().contains("decides")));
}

#[test]
fn words_for_users_can_be_chosen() {
    let nodes = nodes();
    let messages = Messages { reject: "r".into(), terminate: "t".into() };
    let (decider, _) = Decider::new(&with_rules(RECORDED), &nodes, &Recorders::default());
    let decider = decider.with_messages(messages);
    let (src, dst) = (nodes.find("ben").expect("ben"), nodes.find("web").expect("web"));
    let verdict = decider.decide(&Question { src: Subject::Node(src), dst, user: "root" });
    let Verdict::Accept(grant) = verdict else { panic!("{verdict:?}") };
    assert_eq!(grant.reject_message.as_deref(), Some("r"));
    assert_eq!(grant.terminate_message.as_deref(), Some("t"));
}
