//! Who a request is from: a bearer token of the tokens file, or the name in a checked client certificate.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

/// What an identity may do. A node gets its policy and tells events; a recorder announces itself; an admin reads events, and the
/// policy of any node.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Roles {
    pub(super) node: bool,
    pub(super) recorder: bool,
    pub(super) admin: bool,
}

impl Roles {
    fn parse(word: &str) -> Option<Self> {
        let none = Self::default();
        Some(match word {
            "node" => Self { node: true, ..none },
            "recorder" => Self { recorder: true, ..none },
            "admin" => Self { admin: true, ..none },
            _ => return None,
        })
    }
}

/// Somebody who is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Identity {
    /// The id or name of a node of the registry, or whatever the tokens file calls the holder.
    pub(super) node: String,
    pub(super) roles: Roles,
    /// Tags beside those that the registry gives.
    pub(super) tags: Vec<String>,
}

/// The tokens file.
#[derive(Clone, Debug, Default)]
pub(super) struct Tokens {
    by_digest: Vec<([u8; 32], Identity)>,
    by_certificate: BTreeMap<String, Identity>,
}

impl Tokens {
    /// Reads `{"castkeepTokens":1,"tokens":[{"sha256":"…","node":"…","role":"…"}]}`. In the place of `sha256` there may be
    /// `certificate`, a name in client certificates.
    ///
    /// # Errors
    ///
    /// What is wrong, with the number of the entry. Nothing of a token is in it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let file: Value = serde_json::from_slice(text).map_err(|e| e.to_string())?;
        let file = file.as_object().ok_or("must be one object")?;
        only(file, &["castkeepTokens", "tokens"])?;
        if file.get("castkeepTokens").and_then(Value::as_u64) != Some(1) {
            return Err("must begin with \"castkeepTokens\": 1".into());
        }
        let list = file.get("tokens").and_then(Value::as_array).ok_or("`tokens` must be a list")?;
        let mut tokens = Self::default();
        for (at, entry) in list.iter().enumerate() {
            tokens.add(entry).map_err(|why| format!("token {}: {why}", at + 1))?;
        }
        Ok(tokens)
    }

    /// How many entries there are.
    pub(super) fn len(&self) -> usize {
        self.by_digest.len() + self.by_certificate.len()
    }

    /// Whose token it is. All entries are looked at, each to its end, so that the time tells nothing.
    pub(super) fn by_token(&self, token: &str) -> Option<&Identity> {
        let digest: [u8; 32] = Sha256::digest(token.as_bytes()).into();
        let mut found = None;
        for (known, identity) in &self.by_digest {
            if same(known, &digest) {
                found = Some(identity);
            }
        }
        found
    }

    /// Who is called so in certificates, when the file says it.
    pub(super) fn by_certificate(&self, name: &str) -> Option<&Identity> {
        self.by_certificate.get(name)
    }

    fn add(&mut self, entry: &Value) -> Result<(), String> {
        let entry = entry.as_object().ok_or("must be an object")?;
        only(entry, &["sha256", "certificate", "node", "role", "tags"])?;
        let text = |key: &str| entry.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
        let node = text("node").ok_or("`node` must name its holder")?.to_owned();
        let roles = text("role")
            .and_then(Roles::parse)
            .ok_or("`role` must be one of node, recorder, admin")?;
        let tags = match entry.get("tags") {
            None => Vec::new(),
            Some(Value::Array(tags)) => tags
                .iter()
                .map(|tag| tag.as_str().filter(|t| is_tag(t)).map(str::to_owned))
                .collect::<Option<_>>()
                .ok_or("`tags` must be a list of names such as tag:rec")?,
            Some(_) => return Err("`tags` must be a list of names such as tag:rec".into()),
        };
        let identity = Identity { node, roles, tags };
        match (text("sha256"), text("certificate")) {
            (Some(digest), None) => {
                let digest = unhex(digest).ok_or("`sha256` must be 64 hexadecimal digits")?;
                if self.by_digest.iter().any(|(known, _)| *known == digest) {
                    return Err("the same token stands here twice".into());
                }
                self.by_digest.push((digest, identity));
            }
            (None, Some(name)) => {
                if self.by_certificate.insert(name.to_owned(), identity).is_some() {
                    return Err(format!("the certificate `{name}` stands here twice"));
                }
            }
            _ => return Err("either `sha256` or `certificate` must be there".into()),
        }
        Ok(())
    }
}

/// Whether it is written as a tag.
pub(super) fn is_tag(text: &str) -> bool {
    let name = text.strip_prefix("tag:").unwrap_or_default();
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

fn only(map: &Map<String, Value>, known: &[&str]) -> Result<(), String> {
    match map.keys().find(|key| !known.contains(&key.as_str())) {
        Some(key) => Err(format!("there is no key `{key}`, only {}", Words(known))),
        None => Ok(()),
    }
}

struct Words<'a>(&'a [&'a str]);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(", "))
    }
}

/// In a time that does not depend on where they differ.
fn same(a: &[u8; 32], b: &[u8; 32]) -> bool {
    let differing = a.iter().zip(b).fold(0u8, |sum, (a, b)| std::hint::black_box(sum | (a ^ b)));
    differing == 0
}

fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let mut out = [0; 32];
    for (byte, at) in out.iter_mut().zip((0..64).step_by(2)) {
        *byte = u8::from_str_radix(text.get(at..at + 2)?, 16).ok()?;
    }
    Some(out)
}

/// As the tokens file wants it.
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(token: &str, rest: &str) -> String {
        format!("{{\"sha256\":\"{}\",{rest}}}", hex(&Sha256::digest(token)))
    }

    fn file(entries: &[String]) -> Result<Tokens, String> {
        let text = format!("{{\"castkeepTokens\":1,\"tokens\":[{}]}}", entries.join(","));
        Tokens::parse(text.as_bytes())
    }

    #[test]
    fn a_token_has_one_holder_and_one_role() {
        let tokens = file(&[
            entry("one", "\"node\":\"nA\",\"role\":\"node\""),
            entry("two", "\"node\":\"nR\",\"role\":\"recorder\",\"tags\":[\"tag:rec\"]"),
            "{\"certificate\":\"ops.example\",\"node\":\"ops\",\"role\":\"admin\"}".into(),
        ])
        .unwrap();
        assert_eq!(tokens.len(), 3);
        assert_eq!(tokens.by_token("one").unwrap().node, "nA");
        let recorder = tokens.by_token("two").unwrap();
        assert!(recorder.roles.recorder && !recorder.roles.node && !recorder.roles.admin);
        assert_eq!(recorder.tags, ["tag:rec"]);
        assert!(tokens.by_certificate("ops.example").unwrap().roles.admin);
        for stranger in ["", "on", "one ", "ONE", "three"] {
            assert_eq!(tokens.by_token(stranger), None, "{stranger}");
        }
        assert_eq!(tokens.by_certificate("nA"), None);
    }

    #[test]
    fn what_is_wrong_is_said_without_the_token() {
        let ok = entry("one", "\"node\":\"nA\",\"role\":\"node\"");
        for (entries, wanted) in [
            (vec![ok.clone(), ok], "token 2: the same token"),
            (vec![entry("one", "\"node\":\"nA\",\"role\":\"root\"")], "node, recorder, admin"),
            (vec![entry("one", "\"role\":\"node\"")], "`node`"),
            (vec![entry("one", "\"node\":\"nA\",\"role\":\"node\",\"tag\":[]")], "no key `tag`"),
            (vec![entry("one", "\"node\":\"nA\",\"role\":\"node\",\"tags\":[\"rec\"]")], "tag:rec"),
            (
                vec!["{\"sha256\":\"abc\",\"node\":\"n\",\"role\":\"node\"}".into()],
                "64 hexadecimal",
            ),
            (vec!["{\"node\":\"n\",\"role\":\"node\"}".into()], "either `sha256` or"),
            (vec!["7".into()], "token 1: must be an object"),
        ] {
            let error = file(&entries).unwrap_err();
            assert!(error.contains(wanted), "{wanted}: {error}");
        }
        for bad in
            ["", "[]", "{}", "{\"castkeepTokens\":2,\"tokens\":[]}", "{\"castkeepTokens\":1}"]
        {
            assert!(Tokens::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }

    #[test]
    fn tags_are_written_as_tags() {
        assert!(is_tag("tag:rec-1"));
        for bad in ["", "rec", "tag:", "tag:a b", "tag:\u{e4}", "Tag:x"] {
            assert!(!is_tag(bad), "{bad}");
        }
    }
}
