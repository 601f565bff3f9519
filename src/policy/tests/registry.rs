//! Registries of our own format and of `tailscale status`; what contradicts itself.

use super::super::Registry;
use super::{nodes, registry};
use crate::limits;

fn told(text: &str) -> Vec<String> {
    match Registry::parse(text.as_bytes()) {
        Ok((_, found)) => {
            assert!(found.iter().all(|d| d.severity == super::super::Severity::Warning));
            found.iter().map(ToString::to_string).collect()
        }
        Err(found) => {
            assert!(found.iter().any(|d| d.severity == super::super::Severity::Error));
            found.iter().map(ToString::to_string).collect()
        }
    }
}

/// One node behind a good one; it begins on line 2.
fn second(node: &str) -> Vec<String> {
    told(&format!(
        r#"{{"castkeepNodes":1,"nodes":[{{"id":"a","name":"a.example","addresses":["100.64.0.1"],"user":"ada@example.com","userID":1,"key":"nodekey:{k}","numericID":7}},
{node}]}}"#,
        k = "0".repeat(64)
    ))
}

const GOOD: &str = r#"{"id":"b","name":"b.example","addresses":["100.64.0.2"],"tags":["tag:x"]}"#;

#[test]
fn a_registry_is_the_same_when_it_is_written_and_read() {
    let nodes = nodes();
    let text = nodes.to_json();
    let again = registry(&text);
    assert!(nodes.iter().eq(again.iter()));
    assert_eq!(again.to_json(), text);
    assert!(again.has_role("ada@example.com", "admin"));
    assert_eq!(again.find("rec1").and_then(|n| n.recorder.as_ref()).map(|r| r.port), Some(8443));
}

#[test]
fn nodes_are_found_by_id_name_label_and_address() {
    let nodes = nodes();
    for what in [
        "nWeb",
        "web.example",
        "WEB.example.",
        "web",
        "100.64.0.11",
        "fd7a::11",
        "::ffff:100.64.0.11",
    ] {
        assert_eq!(nodes.find(what).map(|n| n.id.as_str()), Some("nWeb"), "{what}");
    }
    assert!(nodes.find("zebra").is_none());
    let two = registry(
        r#"{"castkeepNodes":1,"nodes":[
            {"id":"a","name":"web.one.example","addresses":["100.64.0.1"],"tags":["tag:x"]},
            {"id":"b","name":"web.two.example","addresses":["100.64.0.2"],"tags":["tag:x"]}]}"#,
    );
    assert!(two.find("web").is_none(), "which one?");
    assert_eq!(two.with_tag("tag:x").count(), 2);
}

#[test]
fn registries_that_lie_are_refused() {
    assert_eq!(second(GOOD), [""; 0]);
    let key = format!("\"tags\":[\"tag:x\"],\"key\":\"nodekey:{}\"", "0".repeat(64));
    for (node, expected) in [
        (GOOD.replace("\"b\"", "\"a\""), "\"a\" is the id of \"a.example\" too"),
        (GOOD.replace("64.0.2", "64.0.1"), "100.64.0.1 is an address of \"a.example\" too"),
        (
            GOOD.replace("100.64.0.2", "::ffff:100.64.0.1"),
            "100.64.0.1 is an address of \"a.example\" too",
        ),
        (
            GOOD.replace("\"100.64.0.2\"", "\"fd7a::1\",\"FD7A:0::1\""),
            "fd7a::1 stands twice in one node",
        ),
        (GOOD.replace("b.example", "A.example"), "\"A.example\" is the name of the node \"a\" too"),
        (GOOD.replace(r#""tags":["tag:x"]"#, &key), "the key is that of \"a.example\" too"),
        (
            GOOD.replace(r#""tags":["tag:x"]"#, r#""tags":["tag:x"],"numericID":7"#),
            "7 is the number of \"a.example\" too",
        ),
        (
            GOOD.replace(r#""tags":["tag:x"]"#, r#""user":"eve@example.com","userID":1"#),
            "user 1 is \"eve@example.com\" here and \"ada@example.com\" before",
        ),
        (
            GOOD.replace(r#""tags":["tag:x"]"#, r#""user":"ada@example.com","userID":2"#),
            "\"ada@example.com\" has the number 2 here and 1 before",
        ),
        (
            GOOD.replace(r#""tags":["tag:x"]"#, r#""tags":["tag:x"],"user":"ada@example.com""#),
            "a node has an owner or tags, not both: a tag takes the owner's place",
        ),
        (GOOD.replace("b.example", ""), "a node without a name"),
        (GOOD.replace("\"100.64.0.2\"", ""), "a node without addresses"),
        ("{}".into(), "a node without id"),
        ("7".into(), "a node must be an object, not a number"),
    ] {
        let found = second(&node);
        let hit = |line: &String| {
            line.starts_with("2:") && line.ends_with(&format!(": error: {expected}"))
        };
        assert!(found.iter().any(hit), "{node}: {found:?}");
    }
    let neither = GOOD.replace(r#","tags":["tag:x"]"#, "");
    assert_eq!(
        second(&neither),
        ["2:1: warning: a node with neither an owner nor tags matches no rule"]
    );
}

#[test]
fn words_that_cannot_be() {
    for (from, to, expected) in [
        (
            "\"b\"",
            "\"../b\"",
            "2:7: error: \"../b\" is not an id: letters, digits, \"-\", \"_\" and \".\", no \".\" first",
        ),
        (
            "\"b\"",
            "\"b/c\"",
            "2:7: error: \"b/c\" is not an id: letters, digits, \"-\", \"_\" and \".\", no \".\" first",
        ),
        (
            "\"b\"",
            "\"\"",
            "2:7: error: \"\" is not an id: letters, digits, \"-\", \"_\" and \".\", no \".\" first",
        ),
        ("b.example", "b..example", "2:18: error: \"b..example\" is not a DNS name"),
        ("b.example", "b example", "2:18: error: \"b example\" is not a DNS name"),
        ("b.example", "b\\u001b[2J", "2:18: error: \"b\\u{1b}[2J\" is not a DNS name"),
        ("100.64.0.2", "100.64.0.2/32", "2:43: error: \"100.64.0.2/32\" is not an address"),
        ("100.64.0.2", "300.1.1.1", "2:43: error: \"300.1.1.1\" is not an address"),
        ("100.64.0.2", "0.0.0.0", "2:43: error: 0.0.0.0 is not the address of one node"),
        ("100.64.0.2", "ff02::1", "2:43: error: ff02::1 is not the address of one node"),
        ("tag:x", "x", "2:65: error: \"x\" is not a tag: it must begin with \"tag:\""),
        ("\"tag:x\"", "\"tag:x\",\"tag:x\"", "2:73: error: \"tag:x\" stands twice in one node"),
        ("\"tags\"", "\"tag\"", "2:57: error: unknown key \"tag\": did you mean \"tags\"?"),
        ("\"tags\":[\"tag:x\"]", "\"user\":\" \"", "2:64: error: \" \" is not a login"),
        ("\"tags\":[\"tag:x\"]", "\"user\":7", "2:64: error: user must be a string, not a number"),
        ("\"tags\":", "\"userID\":1.5,\"tags\":", "2:66: error: userID must be a whole number"),
        (
            "\"tags\":",
            "\"key\":\"nodekey:1\",\"tags\":",
            "2:63: error: \"nodekey:1\" is not a key: \"nodekey:\" and 64 hexadecimal digits",
        ),
        (
            "\"tags\":",
            "\"recorder\":{\"port\":0},\"tags\":",
            "2:76: error: a port is between 1 and 65535",
        ),
        (
            "\"tags\":",
            "\"recorder\":{\"prot\":1},\"tags\":",
            "2:69: error: unknown key \"prot\": did you mean \"port\"?",
        ),
        (
            "\"tags\":",
            "\"recorder\":{\"tls\":\"a/b\"},\"tags\":",
            "2:75: error: \"a/b\" is not a DNS name",
        ),
        (
            "\"tags\":",
            "\"colour\":1,\"tags\":",
            "2:57: warning: unknown key \"colour\" is passed over",
        ),
    ] {
        let found = second(&GOOD.replacen(from, to, 1));
        assert!(found.contains(&expected.to_owned()), "{to}: {found:?}");
    }
}

#[test]
fn roles_and_the_frame_are_judged_too() {
    assert_eq!(
        told(r#"{"castkeepNodes": 2, "nodes": {}, "user": [], "users": [{"roles": ["king"]}]}"#),
        [
            "1:19: error: this is a registry of a newer version",
            "1:31: error: nodes must be a list, not an object",
            "1:35: error: unknown key \"user\": did you mean \"users\"?",
            "1:57: error: a user without login",
            "1:68: error: unknown role \"king\": there are admin, auditor, billing-admin, it-admin, network-admin, owner",
        ]
    );
    assert_eq!(
        told("{}"),
        [
            "1:1: error: neither a registry (\"castkeepNodes\": 1) nor the output of tailscale status --json"
        ]
    );
    assert_eq!(told("[]"), ["1:1: error: a node registry must be an object, not a list"]);
    assert_eq!(
        told(r#"{"castkeepNodes":1,"nodes":[{"id":"a","id":"b"}]}"#),
        ["1:39: error: \"id\" stands here twice, first at 1:30"]
    );
}

#[test]
fn the_output_of_tailscale_status_is_a_registry() {
    let text = include_str!("status.json");
    let (nodes, found) = Registry::parse(text.as_bytes()).expect("a registry");
    let found: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].ends_with("warning: this node is passed over: 0 addresses"), "{found:?}");
    assert!(
        found[1].ends_with("warning: this node is passed over: its owner is not among the users"),
        "{found:?}"
    );
    let laptop = nodes.find("laptop").expect("this node");
    assert_eq!(laptop.id, "nLaptopCNTRL");
    assert_eq!(laptop.name, "laptop.tail1234.ts.net");
    let user = laptop.user.as_ref().expect("an owner");
    assert_eq!(
        (user.login.as_str(), user.id, user.display.as_str()),
        ("ada@example.com", 111, "Ada")
    );
    assert_eq!(laptop.addresses.len(), 2);
    assert!(laptop.key.starts_with("nodekey:1111"));
    let recorder = nodes.find("100.100.0.7").expect("a peer");
    assert_eq!(recorder.tags, ["tag:rec"]);
    assert!(recorder.user.is_none());
    assert_eq!(recorder.online, Some(false));
    assert_eq!(nodes.len(), 2);
    // What is written is our own format, and says the same.
    assert!(registry(&nodes.to_json()).iter().eq(nodes.iter()));
    // Two peers with one address: whose session would it be?
    let lie = text.replace("100.100.0.7", "100.100.0.1");
    let found = told(&lie);
    assert!(found.iter().any(|l| l.contains("error: 100.100.0.1 is an address of")), "{found:?}");
}

#[test]
fn a_registry_that_is_broken_anywhere_is_told_where() {
    for text in [nodes().to_json().as_str(), include_str!("status.json")] {
        for at in 0..text.len() {
            let check = |bytes: &[u8]| {
                if let Err(found) = Registry::parse(bytes) {
                    assert!(found.iter().all(|d| d.at.is_some()), "{found:?}");
                }
            };
            check(&text.as_bytes()[..at]);
            for other in [b'"', b'[', b'}', b'0', b'\\', 0xff] {
                let mut mutated = text.as_bytes().to_vec();
                mutated[at] = other;
                check(&mutated);
            }
        }
    }
}

#[test]
fn very_many_nodes_are_read_and_more_are_refused() {
    let some = |n: usize| {
        let nodes: Vec<String> = (0..n)
            .map(|i| {
                let (a, b, c) = (i >> 16 & 63, i >> 8 & 255, i & 255);
                format!(r#"{{"id":"n{i}","name":"n{i}.example","addresses":["100.{}.{b}.{c}"],"user":"u{i}@example.com"}}"#, 64 + a)
            })
            .collect();
        format!("{{\"castkeepNodes\":1,\"nodes\":[{}]}}", nodes.join(","))
    };
    assert_eq!(registry(&some(10_000)).len(), 10_000);
    let found = told(&some(limits::REGISTRY_NODES + 2));
    assert_eq!(found.len(), 1);
    assert!(found[0].ends_with("error: more than 100000 nodes"), "{found:?}");
}
