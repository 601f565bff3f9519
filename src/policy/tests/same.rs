//! Random policies: the index finds what the rules say, and what is compiled decides as the policy does.

use super::super::matching::first_match;
use super::super::ssh::{Connection, Evaluation, Evaluator, LocalUser, SshPolicy};
use super::super::{
    CompileOptions, Decider, PolicyFile, Question, Recorders, Refusal, Registry, Subject, Verdict,
    compile,
};
use super::registry;

const LOGINS: &[&str] = &[
    "ada@example.com",
    "ben@example.com",
    "cleo@other.example",
    "root@example.com",
    "toor@example.com",
    "dora@",
    "*@example.com",
];
const TAGS: &[&str] = &["tag:a", "tag:b", "tag:c", "tag:d"];
const USERS: &[&str] = &["root", "toor", "ada", "ben", "dora", "deploy", "gone", "*", "", "="];

struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n
    }
    fn one<'a>(&mut self, of: &[&'a str]) -> &'a str {
        of[self.below(of.len())]
    }
    fn some<'a>(&mut self, of: &[&'a str]) -> Vec<&'a str> {
        (0..1 + self.below(3)).map(|_| self.one(of)).collect()
    }
}

fn list(words: &[&str]) -> String {
    format!("{words:?}")
}

fn random_rule(dice: &mut Dice) -> String {
    let own = dice.below(4) == 0;
    let check = dice.below(4) == 0;
    let mut sources = vec![
        "group:x",
        "group:y",
        "user:*@example.com",
        "user:*@EXAMPLE.com",
        "autogroup:member",
        "autogroup:admin",
        "autogroup:shared",
        "ada@example.com",
        "cleo@other.example",
        "dora@",
    ];
    if !own && !check {
        sources.extend(["tag:a", "tag:b", "autogroup:tagged", "tag:a", "tag:c"]);
    }
    let (src, dst) = match dice.below(8) {
        0 => (vec!["ada@example.com"], vec!["ada@example.com"]),
        _ if own => (dice.some(&sources), vec!["autogroup:self"]),
        _ => (dice.some(&sources), dice.some(&["tag:a", "tag:b", "tag:c", "autogroup:tagged"])),
    };
    let users = dice.some(&[
        "root",
        "toor",
        "deploy",
        "ada",
        "autogroup:nonroot",
        "localpart:*@example.com",
        "localpart:*@other.example",
        "=",
    ]);
    let mut rule = format!(
        r#"{{"action": "{}", "src": {}, "dst": {}, "users": {}"#,
        if check { "check" } else { "accept" },
        list(&src),
        list(&dst),
        list(&users)
    );
    if dice.below(2) == 0 {
        rule += &format!(r#", "recorder": ["{}"]"#, dice.one(TAGS));
        if dice.below(2) == 0 {
            rule += r#", "enforceRecorder": true"#;
        }
    }
    if dice.below(3) == 0 {
        rule += r#", "acceptEnv": ["A_*"]"#;
    }
    rule + "}"
}

fn random_policy(dice: &mut Dice) -> PolicyFile {
    let rules: Vec<String> = (0..dice.below(8)).map(|_| random_rule(dice)).collect();
    let members = |dice: &mut Dice| {
        let logins: Vec<_> =
            dice.some(LOGINS).into_iter().filter(|login| !login.starts_with('*')).collect();
        list(&logins)
    };
    let text = format!(
        r#"{{"groups": {{"group:x": {}, "group:y": {}}},
            "tagOwners": {{"tag:a": [], "tag:b": [], "tag:c": [], "tag:d": []}}, "ssh": [{}]}}"#,
        members(dice),
        members(dice),
        rules.join(",\n")
    );
    super::policy(&text)
}

fn random_nodes(dice: &mut Dice) -> Registry {
    let nodes: Vec<String> = (0..4 + dice.below(8))
        .map(|i| {
            let whose = if dice.below(2) == 0 {
                // Headscale writes the `@`, a status may not.
                let login = dice.one(LOGINS);
                let bare = dice.below(2) == 0;
                let login = if bare { login.trim_end_matches('@') } else { login };
                format!(r#""user": "{login}""#)
            } else {
                let mut tags = dice.some(TAGS);
                tags.sort_unstable();
                tags.dedup();
                format!(r#""tags": {}"#, list(&tags))
            };
            let recorder = if dice.below(4) == 0 { r#", "recorder": {"port": 8080}"# } else { "" };
            format!(r#"{{"id": "n{i}", "name": "n{i}", "addresses": ["100.64.0.{i}", "fd7a::{i}"], {whose}{recorder}}}"#)
        })
        .collect();
    registry(&format!(
        r#"{{"castkeepNodes": 1, "nodes": [{}], "users": [{{"login": "ben@example.com", "roles": ["admin"]}}]}}"#,
        nodes.join(",")
    ))
}

fn accounts(name: &str) -> LocalUser {
    match name {
        "root" | "toor" => LocalUser::Root,
        "gone" | "*" | "" => LocalUser::Missing,
        _ => LocalUser::Other,
    }
}

fn compare(policy: &PolicyFile, nodes: &Registry, by_address: bool) -> usize {
    let (decider, _) = Decider::new(policy, nodes, &Recorders::default());
    let options = CompileOptions {
        hold_and_delegate: Some("https://control.example/check".into()),
        by_address,
        ..CompileOptions::for_agents()
    };
    let (mut let_in, mut seen) = (0, 0);
    for dst in nodes.iter() {
        let (compiled, infos, _) = compile(policy, nodes, &Recorders::default(), dst, &options);
        let again = SshPolicy::parse(compiled.to_json().as_bytes()).expect("ours");
        assert_eq!(again, compiled, "what is written is read again");
        let evaluator = Evaluator::new(compiled);
        for src in nodes.iter() {
            for user in USERS {
                let case =
                    || format!("{} to {} as {user:?}\n{policy:#?}\n{evaluator:#?}", src.id, dst.id);
                let question = Question { src: Subject::Node(src), dst, user };
                let verdict = decider.decide_among(&question, &accounts);
                let first = first_match(policy, nodes, src, dst, user, &accounts);
                let done = evaluator.evaluate(&Connection {
                    now_unix: 0,
                    // Each address must do.
                    src_ip: src.addresses[(user.len() + seen) % 2],
                    src_node_id: if by_address { "" } else { &src.id },
                    src_login: src.user.as_ref().map_or("", |u| u.login.as_str()),
                    ssh_user: user,
                    local_user: &accounts,
                });
                seen += 1;
                let grant = match verdict {
                    Verdict::Reject(why) => {
                        assert_eq!(first, None, "{}", case());
                        let refused = matches!(done, Evaluation::Reject { rule: None, .. });
                        assert!(refused, "{done:?}: {}", case());
                        assert_ne!(why, Refusal::UnknownSource);
                        continue;
                    }
                    Verdict::Accept(grant) => grant,
                };
                let_in += 1;
                assert_eq!(Some(grant.rule), first, "{}", case());
                let (action, local, env) = match done {
                    Evaluation::Accept { action, local_user, accept_env, .. } => {
                        assert_eq!(grant.check, None, "{}", case());
                        (action, local_user, accept_env)
                    }
                    Evaluation::Hold { action, local_user, accept_env, .. } => {
                        assert!(grant.check.is_some(), "{}", case());
                        (action, local_user, accept_env)
                    }
                    Evaluation::Reject { .. } => panic!("{done:?}: {}", case()),
                };
                assert_eq!(local, grant.local_user, "{}", case());
                assert_eq!(env, grant.accept_env);
                let addresses: Vec<_> = grant.recorders.iter().map(|r| r.address).collect();
                assert_eq!(action.recorders, addresses, "{}", case());
                assert!(addresses.iter().all(|address| infos.contains_key(&address.to_string())));
                let failure = action.on_recording_failure.as_ref();
                assert_eq!(failure.is_some(), grant.record);
                let reject =
                    failure.map(|f| f.reject_session_with_message.clone()).unwrap_or_default();
                assert_eq!(reject, grant.reject_message.unwrap_or_default());
                let end =
                    failure.map(|f| f.terminate_session_with_message.clone()).unwrap_or_default();
                assert_eq!(end, grant.terminate_message.unwrap_or_default());
            }
        }
    }
    let_in
}

#[test]
fn what_is_compiled_decides_as_the_policy_does() {
    let rounds: u64 =
        std::env::var("CASTKEEP_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(1);
    let mut let_in = 0;
    for seed in 1..=60 * rounds {
        let mut dice = Dice(0x9e37_79b9_7f4a_7c15 ^ seed);
        (0..5).for_each(|_| _ = dice.below(2));
        let (policy, nodes) = (random_policy(&mut dice), random_nodes(&mut dice));
        println!("seed {seed}");
        let_in += compare(&policy, &nodes, seed % 2 == 0);
    }
    assert!(let_in > 1000, "only {let_in}: the dice are loaded");
}
