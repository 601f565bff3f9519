//! What is wrong with a policy file is told, where it stands.

use super::super::{PolicyFile, Severity};
use super::{TAGS, told};

/// One rule in an else good file; the rule begins on line 2.
fn rule(rule: &str) -> Vec<String> {
    told(&format!(
        "{{\"groups\": {{\"group:dev\": [\"ada@example.com\"]}}, \"hosts\": {{\"box\": \"100.64.0.9\"}}, {TAGS}, \"ssh\": [\n{rule}]}}"
    ))
}

fn one(text: &str, expected: &str) {
    assert_eq!(rule(text), [expected], "{text}");
}

const GOOD: &str = r#"{"action":"accept","src":["group:dev"],"dst":["tag:prod"],"users":["root"]}"#;

#[test]
fn a_good_rule_tells_nothing() {
    assert_eq!(rule(GOOD), [""; 0]);
    assert_eq!(rule(&GOOD.replace("}", r#","checkPeriod":null,"recorder":null}"#)), [""; 0]);
}

#[test]
fn slips_in_keys_are_errors_with_a_suggestion() {
    for (slip, meant) in [
        ("enforceRecoder", "enforceRecorder"),
        ("EnforceRecorder", "enforceRecorder"),
        ("recorders", "recorder"),
        ("acceptEnvs", "acceptEnv"),
        ("check_period", "checkPeriod"),
        ("user", "users"),
        ("Src", "src"),
    ] {
        let text = GOOD.replace('}', &format!(",\n  \"{slip}\": 1}}"));
        one(&text, &format!("3:3: error: unknown key \"{slip}\": did you mean \"{meant}\"?"));
    }
    one(&GOOD.replace('}', r#","colour":1}"#), "2:76: error: unknown key \"colour\"");
}

#[test]
fn sections_are_known_kept_aside_or_slips() {
    let aside = r#"{"acls": [], "grants": [1], "nodeAttrs": {}, "tests": [], "ACLs": [], "derpMap": {}, "postures": {}, "ipsets": {}, "autoApprovers": {}, "randomizeClientPort": true, "disableIPv4": false, "OneCGNATRoute": "", "defaultSrcPosture": []}"#;
    assert_eq!(told(aside), [""; 0]);
    let (policy, _) = PolicyFile::parse(aside.as_bytes());
    assert!(policy.expect("a policy").kept_aside().contains(&"nodeAttrs".to_owned()));
    for (slip, meant) in [
        ("shh", "ssh"),
        ("SSH", "ssh"),
        ("sshTest", "sshTests"),
        ("sshtests", "sshTests"),
        ("tagOwner", "tagOwners"),
        ("tagowners", "tagOwners"),
        ("Groups", "groups"),
        ("group", "groups"),
        ("host", "hosts"),
    ] {
        let expected = format!("1:2: error: unknown section \"{slip}\": did you mean \"{meant}\"?");
        assert_eq!(told(&format!("{{\"{slip}\": []}}")), [expected]);
    }
    assert_eq!(
        told(r#"{"grant": [], "colours": 1}"#),
        [
            "1:2: warning: unknown section \"grant\" is passed over: did you mean \"grants\"?",
            "1:15: warning: unknown section \"colours\" is passed over",
        ]
    );
    assert_eq!(
        told(r#"{"defaultSrcPosture": ["posture:new"]}"#),
        ["1:2: error: defaultSrcPosture cannot be judged here: the state of devices is not known"]
    );
    assert_eq!(told("[]"), ["1:1: error: a policy file must be an object, not a list"]);
    assert_eq!(told("{\"ssh\": {}}"), ["1:9: error: ssh must be a list, not an object"]);
}

#[test]
fn what_a_rule_must_have() {
    one("{}", "2:1: error: this rule has no action, no src, no dst, no users");
    one("7", "2:1: error: a rule of ssh must be an object, not a number");
    one(
        &GOOD.replace("\"accept\"", "\"deny\""),
        "2:11: error: \"deny\" is not an action: it is \"accept\" or \"check\"",
    );
    one(
        &GOOD.replace("\"accept\"", "true"),
        "2:11: error: action must be a string, not true or false",
    );
    one(&GOOD.replace("[\"root\"]", "[]"), "2:1: error: this rule has no users");
    one(&GOOD.replace("[\"root\"]", "\"root\""), "2:67: error: users must be a list, not a string");
    one(
        &GOOD.replace("\"root\"", "0"),
        "2:68: error: each of users must be a string, not a number",
    );
}

#[test]
fn sources_that_cannot_be() {
    for (text, why) in [
        ("*", r#""*" cannot be a source of SSH"#),
        ("100.64.0.7", r#"an address cannot be a source of SSH: "100.64.0.7""#),
        ("10.0.0.0/8", r#"an address cannot be a source of SSH: "10.0.0.0/8""#),
        ("box", r#"a host cannot be a source of SSH: "box""#),
        ("dev", r#"unknown source "dev": did you mean "group:dev"?"#),
        ("prod", r#"unknown source "prod": did you mean "tag:prod"?"#),
        ("ada", r#"unknown source "ada": neither a login nor a group, a tag or an autogroup"#),
        ("group:devs", r#"unknown group "group:devs": did you mean "group:dev"?"#),
        ("group:zebra", r#"unknown group "group:zebra": it is not in groups"#),
        (
            "group:ops@idp.example",
            r#"unknown group "group:ops@idp.example": groups of an identity provider are not known here, list its members in groups"#,
        ),
        ("tag:prd", r#"unknown tag "tag:prd": did you mean "tag:prod"?"#),
        ("tag:zebra", r#"unknown tag "tag:zebra": it is not in tagOwners"#),
        ("tag:", r#""tag:" is not a tag: letters, digits and "-", a letter first"#),
        ("autogroup:self", r#""autogroup:self" cannot be a source of SSH"#),
        ("autogroup:danger-all", r#""autogroup:danger-all" cannot be a source of SSH"#),
        ("autogroup:memebr", r#"unknown "autogroup:memebr": did you mean "autogroup:member"?"#),
        ("autogroup:zebra", r#"unknown "autogroup:zebra""#),
        ("user:*@gmail.com", r#""gmail.com" is shared by strangers, so it cannot stand for users"#),
        ("user:a*@example.com", r#""user:a*@example.com" must have the shape user:*@DOMAIN"#),
        (
            "localpart:*@example.com",
            r#""localpart:*@example.com" is an account, so it stands in users"#,
        ),
    ] {
        one(&GOOD.replace("group:dev", text), &format!("2:27: error: {why}"));
    }
}

#[test]
fn destinations_that_cannot_be() {
    for (text, why) in [
        ("*", r#""*" cannot be a destination of SSH"#),
        ("box", r#"a host cannot be a destination of SSH: "box""#),
        ("fd7a::1", r#"an address cannot be a destination of SSH: "fd7a::1""#),
        ("tag:prod:22", r#""tag:prod:22" is not a tag: SSH has no ports here, and tags no colon"#),
        (
            "group:dev",
            r#""group:dev" cannot be a destination of SSH: it would let users onto devices of others"#,
        ),
        (
            "autogroup:member",
            r#""autogroup:member" cannot be a destination of SSH: it would let users onto devices of others; "autogroup:self" is everybody's own"#,
        ),
        ("autogroup:admin", r#""autogroup:admin" cannot be a destination of SSH"#),
        ("autogroup:internet", r#""autogroup:internet" cannot be a destination of SSH"#),
        (
            "ada@example.com",
            r#""ada@example.com" can be a destination only where src is "ada@example.com" alone: nobody may get onto devices of others"#,
        ),
    ] {
        one(&GOOD.replace("tag:prod", text), &format!("2:47: error: {why}"));
    }
    assert_eq!(
        rule(&GOOD.replace("group:dev", "ada@example.com").replace("tag:prod", "ada@example.com")),
        [""; 0]
    );
}

#[test]
fn sources_and_destinations_that_do_not_go_together() {
    let own = GOOD.replace("tag:prod", "autogroup:self");
    assert_eq!(rule(&own), [""; 0]);
    for tagged in ["tag:ci", "autogroup:tagged"] {
        one(
            &own.replace("group:dev", tagged),
            "2:27: error: \"autogroup:self\" needs users as sources: a node with a tag has no owner",
        );
        one(
            &GOOD.replace("group:dev", tagged).replace("accept", "check"),
            "2:26: error: a node with a tag cannot be asked to check: nobody sits before it",
        );
        assert_eq!(rule(&GOOD.replace("group:dev", tagged)), [""; 0]);
    }
    assert_eq!(
        told(
            r#"{"ssh": [
                {"action":"accept","src":["autogroup:member"],"dst":["autogroup:self"],"users":["root"]},
                {"action":"accept","src":["autogroup:members"],"dst":["autogroup:self"],"users":["root"]}]}"#
        ),
        [
            "3:43: error: \"autogroup:members\" and \"autogroup:member\" in one file: use the latter alone"
        ]
    );
}

#[test]
fn accounts_that_cannot_be() {
    for (text, told) in [
        ("", r#"error: "" is not an account; "autogroup:nonroot" is every one but root"#),
        ("*", r#"error: "*" is not an account; "autogroup:nonroot" is every one but root"#),
        (
            "autogroup:non-root",
            r#"error: unknown account "autogroup:non-root": did you mean "autogroup:nonroot"?"#,
        ),
        (
            "autogroup:member",
            r#"warning: "autogroup:member" is not an account, so it lets nobody in"#,
        ),
        ("group:dev", r#"error: "group:dev" is not an account of the host"#),
        (
            "localpart:ada@example.com",
            r#"error: "localpart:ada@example.com" must have the shape localpart:*@DOMAIN"#,
        ),
        (
            "localpart:*@gmail.com",
            r#"error: "gmail.com" is shared by strangers, so it cannot stand for users"#,
        ),
        (
            "ada@example.com",
            r#"warning: "ada@example.com" is taken as the name of an account of the host, not as a login"#,
        ),
    ] {
        one(&GOOD.replace("root", text), &format!("2:68: {told}"));
    }
}

#[test]
fn check_periods() {
    let with = |period: &str| {
        GOOD.replace("accept", "check").replace('}', &format!(",\n\"checkPeriod\":{period}}}"))
    };
    for good in ["\"12h\"", "\"1m\"", "\"1h30m\"", "\"168h\"", "\"always\"", "null", "\"90m30s\""] {
        assert_eq!(rule(&with(good)), [""; 0], "{good}");
    }
    for bad in [
        "\"\"",
        "\"h\"",
        "\"12\"",
        "\"12 h\"",
        "\"-1h\"",
        "\"1d\"",
        "\"Always\"",
        "\"1ms\"",
        "\"99999999999999999999h\"",
    ] {
        one(
            &with(bad),
            &format!("3:15: error: {bad} is not a time: \"12h\", \"90m\", \"1h30m\" or \"always\""),
        );
    }
    one(&with("\"169h\""), "3:15: error: checkPeriod \"169h\" is more than 168h, a week");
    one(&with("\"30s\""), "3:15: warning: checkPeriod is less than a minute");
    one(&with("12"), "3:15: error: checkPeriod must be a string, not a number");
    one(
        &with("\"12h\"").replace("check\"", "accept\""),
        "3:15: warning: checkPeriod means something only where the action is \"check\"",
    );
}

#[test]
fn recorders_and_environment() {
    let with = |more: &str| GOOD.replace('}', &format!(",\n{more}}}"));
    assert_eq!(
        rule(&with(r#""recorder":["tag:rec"],"enforceRecorder":true,"acceptEnv":["GIT_*","A?"]"#)),
        [""; 0]
    );
    for (more, told) in [
        (r#""recorder":[]"#, "3:12: error: recorder must have exactly one tag, not 0"),
        (
            r#""recorder":["tag:rec","tag:ci"]"#,
            "3:12: error: recorder must have exactly one tag, not 2",
        ),
        (r#""recorder":"tag:rec""#, "3:12: error: recorder must be a list, not a string"),
        (r#""recorder":["rec"]"#, "3:13: error: \"rec\" is not a tag: it must begin with \"tag:\""),
        (
            r#""recorder":["tag:reg"]"#,
            "3:13: error: unknown tag \"tag:reg\": did you mean \"tag:rec\"?",
        ),
        (
            r#""enforceRecorder":true"#,
            "3:1: error: enforceRecorder without recorder: nothing would be recorded",
        ),
        (
            r#""recorder":["tag:rec"],"enforceRecorder":"yes""#,
            "3:42: error: enforceRecorder must be true or false, not a string",
        ),
        (
            r#""acceptEnv":[""]"#,
            "3:14: error: \"\" is not a name of a variable: letters, digits, \"_\", \"*\" and \"?\"",
        ),
        (
            r#""acceptEnv":["A=B"]"#,
            "3:14: error: \"A=B\" is not a name of a variable: letters, digits, \"_\", \"*\" and \"?\"",
        ),
        (
            r#""srcPosture":["posture:x"]"#,
            "3:1: error: srcPosture cannot be judged here: the state of devices is not known",
        ),
    ] {
        let found = rule(&with(more));
        assert!(found.contains(&told.to_owned()), "{more}: {found:?}");
    }
    assert_eq!(rule(&with(r#""enforceRecorder":false"#)), [""; 0]);
}

#[test]
fn groups_do_not_nest() {
    assert_eq!(
        told(
            r#"{"groups": {
  "group:a": ["group:b"],
  "group:b": ["ada@example.com", "group:c"],
  "group:c": ["group:a"],
  "group:d": ["group:d"],
  "group:e": ["group:f", "group:zebra"],
  "group:f": []
}}"#
        ),
        [
            "2:15: error: \"group:a\" contains itself: group:a > group:b > group:c > group:a",
            "3:34: error: \"group:b\" contains itself: group:b > group:c > group:a > group:b",
            "4:15: error: \"group:c\" contains itself: group:c > group:a > group:b > group:c",
            "5:15: error: \"group:d\" contains itself: group:d > group:d",
            "6:15: error: \"group:f\" in a group: groups cannot contain groups",
            "6:26: error: \"group:zebra\" in a group: groups cannot contain groups, and this one is unknown",
        ]
    );
    assert_eq!(
        told(r#"{"groups": {"group:x": ["tag:a", "ada", "*@example.com"]}}"#),
        ["tag:a", "ada", "*@example.com"]
            .iter()
            .zip([25, 34, 41])
            .map(|(text, at)| format!(
                "1:{at}: error: {text:?} is not a login: groups contain users alone"
            ))
            .collect::<Vec<_>>()
    );
    assert_eq!(
        told(
            r#"{"groups": {"dev": [], "group:x": ["tag:a", 3], "group:": [], "group:y": "ada@example.com"}}"#
        ),
        [
            "1:13: error: \"dev\" is not the name of a group: \"group:\" and a word",
            "1:45: error: each of \"group:x\" must be a string, not a number",
            "1:49: error: \"group:\" is not the name of a group: \"group:\" and a word",
            "1:74: error: \"group:y\" must be a list, not a string",
        ]
    );
}

#[test]
fn hosts_and_owners() {
    assert_eq!(
        told(
            r#"{"hosts": {"a": "100.64.0.1", "b": "10.0.0.0/8", "c": "x", "d@e": "::1", "f": "10.0.0.0/33", "g": 1},
"groups": {"group:dev": []},
"tagOwners": {"tag:a": ["group:dev", "tag:b", "autogroup:admin", "ada@example.com"], "tag:b": null, "c": [],
 "tag:d": ["group:dv", "tag:zebra", "ada"], "tag:9": []}}"#
        ),
        [
            "1:55: error: \"x\" is not an address",
            "1:60: error: \"d@e\" is not the name of a host",
            "1:79: error: \"10.0.0.0/33\" is not an address",
            "1:99: error: \"g\" must be a string, not a number",
            "3:101: error: \"c\" is not a tag: it must begin with \"tag:\"",
            "4:12: error: unknown group \"group:dv\": did you mean \"group:dev\"?",
            "4:24: error: unknown tag \"tag:zebra\": it is not in tagOwners",
            "4:37: error: unknown source \"ada\": neither a login nor a group, a tag or an autogroup",
            "4:45: error: \"tag:9\" is not a tag: letters, digits and \"-\", a letter first",
        ]
    );
}

#[test]
fn tests_that_cannot_be() {
    let test = |test: &str| {
        told(&format!(
            "{{\"hosts\": {{\"box\": \"100.64.0.9\", \"net\": \"10.0.0.0/8\"}}, {TAGS}, \"sshTests\": [\n{test}]}}"
        ))
    };
    assert_eq!(
        test(
            r#"{"src":"100.64.0.1","dst":["box","tag:prod","ada@example.com","autogroup:self"],"check":["x"],"srcPostureAttrs":{}}"#
        ),
        [""; 0]
    );
    for (text, expected) in [
        (r#"{"src":"ada@example.com","accept":["x"]}"#, "2:1: error: this test has no dst"),
        (r#"{"dst":["box"],"accept":["x"]}"#, "2:1: error: this test has no src"),
        (
            r#"{"src":"ada@example.com","dst":["box"]}"#,
            "2:1: error: this test asserts nothing: it has no accept, no check and no deny",
        ),
        (r#"{"src":"box","dst":["box"],"alow":["x"]}"#, "2:28: error: unknown key \"alow\""),
        (
            r#"{"src":"box","dst":["box"],"denny":["x"]}"#,
            "2:28: error: unknown key \"denny\": did you mean \"deny\"?",
        ),
        (
            r#"{"src":"*","dst":["box"],"deny":["x"]}"#,
            "2:8: error: unknown src \"*\": neither a login nor a group, a tag or a host",
        ),
        (
            r#"{"src":"net","dst":["box"],"deny":["x"]}"#,
            "2:8: error: \"net\" is a range, and src of a test is one address",
        ),
        (
            r#"{"src":"box","dst":["100.64.0.9"],"deny":["x"]}"#,
            "2:21: error: unknown dst \"100.64.0.9\": neither a login nor a group, a tag or a host",
        ),
        (
            r#"{"src":"box","dst":["tag:prod:22"],"deny":["x"]}"#,
            "2:21: error: \"tag:prod:22\" is not a tag: SSH has no ports here, and tags no colon",
        ),
        (
            r#"{"src":"box","dst":["box"],"deny":["*"]}"#,
            "2:36: error: \"*\" is not the name of one account",
        ),
    ] {
        assert_eq!(test(text), [expected], "{text}");
    }
}

#[test]
fn errors_are_told_up_to_a_number() {
    let rules = vec!["{}"; 1000].join(",");
    let found = told(&format!("{{\"ssh\": [{rules}]}}"));
    assert_eq!(found.len(), 201);
    assert_eq!(found[200], "error: and 800 more that are not shown");
}

#[test]
fn more_rules_than_the_cap_are_refused() {
    let found = told(&format!("{{\"ssh\": [{}]}}", vec!["{}"; 20_001].join(",")));
    assert_eq!(found, ["1:9: error: ssh has more than 20000 entries"]);
}

/// Each would take minutes, or the memory of the machine, if its work grew with the square of the file or its messages with what they
/// quote.
#[test]
fn large_files_full_of_errors_are_told_soon() {
    let many =
        |n: usize, one: &dyn Fn(usize) -> String| (0..n).map(one).collect::<Vec<_>>().join(",");
    let nested = many(20_000, &|i| format!("\"group:{i}\":[\"group:{}\"]", (i + 1) % 20_000));
    assert_eq!(told(&format!("{{\"groups\":{{{nested}}}}}")).len(), 201);
    let one = many(100_000, &|_| "\"group:a\"".into());
    assert_eq!(told(&format!("{{\"groups\":{{\"group:a\":[{one}]}}}}")).len(), 201);
    let tags = many(20_000, &|i| format!("\"tag:server-{i}\":[]"));
    let slips = many(5_000, &|i| format!("\"tag:sever-{i}\""));
    let rule = format!("{{\"action\":\"accept\",\"src\":[{slips}],\"dst\":[],\"users\":[\"x\"]}}");
    let found = told(&format!("{{\"tagOwners\":{{{tags}}},\"ssh\":[{rule}]}}"));
    assert_eq!(found.len(), 201);
    assert!(found[0].ends_with("did you mean \"tag:server-0\"?"), "{}", found[0]);
    assert!(found[199].ends_with("it is not in tagOwners"), "{}", found[199]);
    let long = "\\u0007".repeat(500_000);
    let found = told(&format!("{{\"groups\":{{\"{long}\":[]}},\"hosts\":{{\"a\":\"{long}\"}}}}"));
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|line| line.len() < 600 && !line.contains('\u{7}')));
    let twice = many(50_000, &|i| format!("\"k{}\":1", i % 25_000));
    assert_eq!(told(&format!("{{\"acls\":{{{twice}}}}}")).len(), 200);
    let values = vec!["[]"; 1_200_000].join(",");
    assert_eq!(
        told(&format!("{{\"acls\":[{values}]}}"))[0].split(": ").last(),
        Some("more than 2000000 values")
    );
}

/// Breaks a file at each byte in several ways: no panic, and what is an error has a place in the text.
#[test]
fn a_file_that_is_broken_anywhere_is_told_where() {
    let sample = include_str!("sample.hujson");
    assert_eq!(told(sample), [""; 0]);
    let check = |bytes: &[u8]| {
        let (policy, found) = PolicyFile::parse(bytes);
        let lines = bytes.split(|b| *b == b'\n').count();
        assert_eq!(policy.is_none(), found.iter().any(|d| d.severity == Severity::Error));
        for d in &found {
            assert!(d.at.is_some() && d.at.line as usize <= lines, "{d}");
            assert!(d.at.column as usize <= bytes.len() + 1, "{d}");
        }
        policy.is_none()
    };
    let bytes = sample.as_bytes();
    let mut broken = 0;
    for at in 0..bytes.len() {
        broken += usize::from(check(&bytes[..at]));
        for other in [b'"', b'{', b']', b',', b'\\', b'*', 0, 0xff, bytes[at] ^ 0x20] {
            let mut mutated = bytes.to_vec();
            mutated[at] = other;
            broken += usize::from(check(&mutated));
        }
        let mut without = bytes.to_vec();
        without.remove(at);
        broken += usize::from(check(&without));
    }
    // Truncation always is an error, but for the newline at the end.
    assert!(broken > bytes.len());
}
