//! The first line of a cast.

use alloc::string::String;
use alloc::vec::Vec;

use serde_json::{Map, Value};

use super::{DecodeError, clamp_size};
use crate::upload::wire::{Decimal, hex_digit};
use crate::{Error, error::Misuse, limits::HEADER_LINE_BYTES, space};

/// The first line of a cast: asciicast's keys and those of Tailscale SSH, plus ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Version of the format that was read: 1 is refused, 2 has absolute times, 3 has the time since the event before.
    /// Always written as 2.
    pub version: u8,
    /// Columns at the start; 0 without a terminal.
    pub width: u16,
    /// Rows at the start; 0 without a terminal.
    pub height: u16,
    /// Start of the session, seconds since 1970 by the node's clock.
    pub timestamp: i64,
    /// The command; none for a shell.
    pub command: Option<String>,
    /// Name of the node that the user came from.
    pub src_node: String,
    /// Its stable id.
    pub src_node_id: String,
    /// Its tags.
    pub src_node_tags: Vec<String>,
    /// Its user's id; only without tags.
    pub src_node_user_id: Option<i64>,
    /// Its user's login name; only without tags.
    pub src_node_user: Option<String>,
    /// Environment, in its order; written as null when absent.
    pub env: Option<Vec<(String, String)>>,
    /// The user as the client asked for.
    pub ssh_user: String,
    /// The user that the session runs as.
    pub local_user: String,
    /// Shared by all sessions of one SSH connection.
    pub connection_id: String,
    /// Only for `kubectl` sessions.
    pub kubernetes: Option<Kubernetes>,
    /// What castkeep adds.
    pub castkeep: Option<Castkeep>,
    /// Set in a part that does not begin at the start of its recording.
    pub continues: Option<Continues>,
}

/// The container of a `kubectl exec` or `attach`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Kubernetes {
    /// Pod.
    pub pod_name: String,
    /// Namespace.
    pub namespace: String,
    /// Container.
    pub container: String,
    /// `exec` or `attach`.
    pub session_type: String,
}

/// Our own header object.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Castkeep {
    /// Recording id, 32 hexadecimal digits.
    pub recording: String,
    /// The node that the session runs on.
    pub node: String,
    /// `shell`, `exec` or `subsystem`.
    pub kind: String,
    /// Program and version that recorded, such as `castkeep/0.1.0`.
    pub client: String,
    /// How it is known who the source is: `whois`, `registry`, `certificate`, `claimed`. None: the host said so, and nobody looked.
    pub source_by: Option<String>,
}

/// Where a part belongs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Continues {
    /// Recording id.
    pub recording: String,
    /// Offset in the stream of the byte behind this header line.
    pub offset: u64,
}

impl Default for Header {
    fn default() -> Self {
        Self {
            version: 2,
            width: 0,
            height: 0,
            timestamp: 0,
            command: None,
            src_node: String::new(),
            src_node_id: String::new(),
            src_node_tags: Vec::new(),
            src_node_user_id: None,
            src_node_user: None,
            env: None,
            ssh_user: String::new(),
            local_user: String::new(),
            connection_id: String::new(),
            kubernetes: None,
            castkeep: None,
            continues: None,
        }
    }
}

impl Header {
    /// The header line with its LF. The command is cut where the line would pass `HEADER_LINE_BYTES`.
    ///
    /// # Errors
    /// `TooBig` when it does not fit without the command; `NoMemory`.
    pub fn encode(&self) -> Result<Vec<u8>, Error> {
        self.encode_with(self.continues.as_ref().map(|c| (c.recording.as_str(), c.offset)))
    }

    /// The header line of a part that begins at `offset`: as [`Header::encode`], plus `castkeepContinues`.
    ///
    /// # Errors
    /// As [`Header::encode`]; `Misuse` when there is no `castkeep` object and so no recording id.
    pub fn encode_continuation(&self, offset: u64) -> Result<Vec<u8>, Error> {
        let Some(castkeep) = &self.castkeep else {
            return Err(Error::Misuse(Misuse::WrongState));
        };
        self.encode_with(Some((&castkeep.recording, offset)))
    }

    /// Counted before it is written: on a small machine a line twice as long as needed would be a part of what a session takes.
    fn encode_with(&self, continues: Option<(&str, u64)>) -> Result<Vec<u8>, Error> {
        // The room for `castkeepContinues` is always left, so that every part of a recording has the same command.
        let count = |command_most, continues| {
            let mut counted = Object::counting();
            self.write(&mut counted, command_most, continues);
            counted.len
        };
        let others = count(0, None).saturating_add(CONTINUES_BYTES).max(count(0, continues));
        let command_most = HEADER_LINE_BYTES.saturating_sub(others);
        let length = count(command_most, continues);
        if length > HEADER_LINE_BYTES {
            return Err(Error::TooBig);
        }
        let mut object = Object::writing(length)?;
        self.write(&mut object, command_most, continues);
        if object.refused { Err(Error::NoMemory) } else { Ok(object.line) }
    }

    fn write(&self, o: &mut Object, command_most: usize, continues: Option<(&str, u64)>) {
        o.put(b"{");
        o.number("version", 2);
        o.number("width", self.width.into());
        o.number("height", self.height.into());
        o.signed("timestamp", self.timestamp);
        if let Some(command) = self.command.as_deref().filter(|c| !c.is_empty()) {
            o.key("command");
            o.put(b"\"");
            o.escape(command, command_most);
            o.put(b"\"");
        }
        self.write_behind_command(o);
        if let Some((recording, offset)) = continues {
            o.object("castkeepContinues", |o| {
                o.string("recording", recording);
                o.number("offset", offset);
            });
        }
        o.put(b"}\n");
    }

    fn write_behind_command(&self, o: &mut Object) {
        o.string("srcNode", &self.src_node);
        o.string("srcNodeID", &self.src_node_id);
        if !self.src_node_tags.is_empty() {
            o.key("srcNodeTags");
            for (at, tag) in self.src_node_tags.iter().enumerate() {
                o.put(if at == 0 { b"[" } else { b"," });
                o.quoted(tag);
            }
            o.put(b"]");
        }
        if let Some(id) = self.src_node_user_id.filter(|id| *id != 0) {
            o.signed("srcNodeUserID", id);
        }
        if let Some(user) = self.src_node_user.as_deref().filter(|u| !u.is_empty()) {
            o.string("srcNodeUser", user);
        }
        match &self.env {
            None => {
                o.key("env");
                o.put(b"null");
            }
            Some(env) => o.object("env", |o| {
                for (name, value) in env {
                    o.string(name, value);
                }
            }),
        }
        o.string("sshUser", &self.ssh_user);
        o.string("localUser", &self.local_user);
        o.string("connectionID", &self.connection_id);
        if let Some(k) = &self.kubernetes {
            o.object("kubernetes", |o| {
                o.string("PodName", &k.pod_name);
                o.string("Namespace", &k.namespace);
                o.string("Container", &k.container);
                o.string("SessionType", &k.session_type);
            });
        }
        if let Some(c) = &self.castkeep {
            o.object("castkeep", |o| {
                o.string("recording", &c.recording);
                o.string("node", &c.node);
                o.string("kind", &c.kind);
                o.string("client", &c.client);
                if let Some(by) = &c.source_by {
                    o.string("sourceBy", by);
                }
            });
        }
    }

    /// Reads a header line of version 2 or 3, with or without its LF. Missing, null and unknown keys are no error, and neither are values of
    /// another type: they are as if missing.
    ///
    /// # Errors
    /// When the line is not a JSON object with a version, or has another version.
    pub fn parse(line: &[u8]) -> Result<Self, DecodeError> {
        // Somebody's header may hold bytes that are not UTF-8, in a value that nobody needs.
        let line = String::from_utf8_lossy(line);
        let Ok(Value::Object(keys)) = serde_json::from_str(&line) else {
            return Err(DecodeError::NotAHeader);
        };
        let version = match integer(&keys, "version") {
            Some(v @ (2 | 3)) => v as u8,
            Some(v) => return Err(DecodeError::Version(u8::try_from(v).unwrap_or(u8::MAX))),
            None => return Err(DecodeError::NotAHeader),
        };
        // Version 3 keeps the size in an object.
        let term = object(&keys, "term");
        let size = |v2: &str, v3: &str| {
            let size = integer(&keys, v2).or_else(|| integer(term?, v3)).unwrap_or(0);
            u16::try_from(size.clamp(0, u16::MAX.into())).unwrap_or(0)
        };
        let mut env = object(&keys, "env").map(pairs);
        let known = env.iter().flatten().any(|(key, _)| key == "TERM");
        if let Some(name) = term.and_then(|t| string(t, "type")).filter(|_| !known) {
            env.get_or_insert_default().push(("TERM".into(), name));
        }
        Ok(Self {
            version,
            width: size("width", "cols"),
            height: size("height", "rows"),
            timestamp: integer(&keys, "timestamp").unwrap_or(0),
            command: string(&keys, "command"),
            src_node: string(&keys, "srcNode").unwrap_or_default(),
            src_node_id: string(&keys, "srcNodeID").unwrap_or_default(),
            src_node_tags: strings(&keys, "srcNodeTags"),
            src_node_user_id: integer(&keys, "srcNodeUserID"),
            src_node_user: string(&keys, "srcNodeUser"),
            env,
            ssh_user: string(&keys, "sshUser").unwrap_or_default(),
            local_user: string(&keys, "localUser").unwrap_or_default(),
            connection_id: string(&keys, "connectionID").unwrap_or_default(),
            kubernetes: object(&keys, "kubernetes").map(|k| Kubernetes {
                pod_name: string(k, "PodName").unwrap_or_default(),
                namespace: string(k, "Namespace").unwrap_or_default(),
                container: string(k, "Container").unwrap_or_default(),
                session_type: string(k, "SessionType").unwrap_or_default(),
            }),
            castkeep: object(&keys, "castkeep").map(|c| Castkeep {
                recording: string(c, "recording").unwrap_or_default(),
                node: string(c, "node").unwrap_or_default(),
                kind: string(c, "kind").unwrap_or_default(),
                client: string(c, "client").unwrap_or_default(),
                source_by: string(c, "sourceBy"),
            }),
            continues: object(&keys, "castkeepContinues").map(|c| Continues {
                recording: string(c, "recording").unwrap_or_default(),
                offset: c.get("offset").and_then(Value::as_u64).unwrap_or(0),
            }),
        })
    }

    /// The size to play with: 80x24 for a session without a terminal, else clamped as [`clamp_size`] does.
    #[must_use]
    pub fn display_size(&self) -> (u16, u16) {
        if self.width == 0 || self.height == 0 {
            return (80, 24);
        }
        clamp_size(self.width, self.height)
    }

    /// Whether `r` events of this cast are `ROWSxCOLS`, as those of Tailscale's Kubernetes proxy are.
    #[must_use]
    pub const fn rows_first(&self) -> bool {
        self.kubernetes.is_some() && self.castkeep.is_none()
    }
}

/// A JSON object being written, or only counted: `preserve_order` or not, the keys stand as they are given.
struct Object {
    line: Vec<u8>,
    len: usize,
    counting: bool,
    empty: bool,
    /// Memory was refused: the line lacks something.
    refused: bool,
}

impl Object {
    const fn counting() -> Self {
        Self { line: Vec::new(), len: 0, counting: true, empty: true, refused: false }
    }

    fn writing(room: usize) -> Result<Self, Error> {
        let mut line = Vec::new();
        space::reserve(&mut line, room)?;
        Ok(Self { line, counting: false, ..Self::counting() })
    }

    fn put(&mut self, bytes: &[u8]) {
        self.len = self.len.saturating_add(bytes.len());
        if !self.counting {
            self.refused |= space::extend(&mut self.line, bytes).is_err();
        }
    }

    fn key(&mut self, name: &str) {
        if !self.empty {
            self.put(b",");
        }
        self.empty = false;
        self.quoted(name);
        self.put(b":");
    }

    fn number(&mut self, name: &str, value: u64) {
        self.key(name);
        self.digits(value);
    }

    fn signed(&mut self, name: &str, value: i64) {
        self.key(name);
        if value < 0 {
            self.put(b"-");
        }
        self.digits(value.unsigned_abs());
    }

    fn digits(&mut self, value: u64) {
        self.put(Decimal::new(value).as_str().as_bytes());
    }

    fn string(&mut self, name: &str, value: &str) {
        self.key(name);
        self.quoted(value);
    }

    fn object(&mut self, name: &str, write: impl FnOnce(&mut Self)) {
        self.key(name);
        self.put(b"{");
        self.empty = true;
        write(self);
        self.put(b"}");
        self.empty = false;
    }

    fn quoted(&mut self, value: &str) {
        self.put(b"\"");
        self.escape(value, usize::MAX);
        self.put(b"\"");
    }

    /// Appends as many whole characters of a string's content as take at most `most` bytes.
    fn escape(&mut self, text: &str, most: usize) {
        let end = self.len.saturating_add(most);
        for (at, c) in text.char_indices() {
            let start = self.len;
            match c {
                '"' => self.put(b"\\\""),
                '\\' => self.put(b"\\\\"),
                '\n' => self.put(b"\\n"),
                '\r' => self.put(b"\\r"),
                '\t' => self.put(b"\\t"),
                '\0'..='\x0f' => self.put(&[b'\\', b'u', b'0', b'0', b'0', hex_digit(c as u8)]),
                '\x10'..='\x1f' => {
                    self.put(&[b'\\', b'u', b'0', b'0', b'1', hex_digit(c as u8 & 0xf)])
                }
                _ => self.put(
                    text.as_bytes().get(at..at.saturating_add(c.len_utf8())).unwrap_or_default(),
                ),
            }
            if self.len > end {
                self.len = start;
                self.line.truncate(start);
                return;
            }
        }
    }
}

fn object<'a>(keys: &'a Map<String, Value>, name: &str) -> Option<&'a Map<String, Value>> {
    keys.get(name)?.as_object()
}

fn string(keys: &Map<String, Value>, name: &str) -> Option<String> {
    keys.get(name)?.as_str().map(String::from)
}

fn strings(keys: &Map<String, Value>, name: &str) -> Vec<String> {
    let list = keys.get(name).and_then(Value::as_array);
    list.into_iter().flatten().filter_map(|v| v.as_str().map(String::from)).collect()
}

fn pairs(keys: &Map<String, Value>) -> Vec<(String, String)> {
    keys.iter().filter_map(|(k, v)| Some((k.clone(), v.as_str()?.into()))).collect()
}

/// A whole number, however it is written.
fn integer(keys: &Map<String, Value>, name: &str) -> Option<i64> {
    let value = keys.get(name)?;
    value.as_i64().or_else(|| value.as_f64().map(|float| float as i64))
}

/// `,"castkeepContinues":{"recording":"…","offset":…}` with an id of 32 digits and the largest offset.
const CONTINUES_BYTES: usize = 112;

#[cfg(test)]
mod tests {
    use super::*;

    fn full() -> Header {
        Header {
            width: 80,
            height: 24,
            timestamp: 1_700_000_000,
            command: Some("ls \"a b\"\n".into()),
            src_node: "laptop.example.ts.net".into(),
            src_node_id: "nABC".into(),
            src_node_tags: vec!["tag:a".into(), "tag:b".into()],
            src_node_user_id: Some(30_585_448_562_688_899),
            src_node_user: Some("u@example.com".into()),
            env: Some(vec![("TERM".into(), "xterm".into()), ("A".into(), "b".into())]),
            ssh_user: "root".into(),
            local_user: "root".into(),
            connection_id: "ssh-conn-20260101T000000-0123456789".into(),
            kubernetes: Some(Kubernetes {
                pod_name: "p".into(),
                namespace: "n".into(),
                container: "c".into(),
                session_type: "exec".into(),
            }),
            castkeep: Some(Castkeep {
                recording: "0123456789abcdef0123456789abcdef".into(),
                node: "web1".into(),
                kind: "exec".into(),
                client: "castkeep/0.1.0".into(),
                source_by: Some("registry".into()),
            }),
            ..Header::default()
        }
    }

    #[test]
    fn keys_stand_in_the_order_of_stock_sources() {
        assert_eq!(
            String::from_utf8(full().encode().unwrap()).unwrap(),
            concat!(
                r#"{"version":2,"width":80,"height":24,"timestamp":1700000000,"command":"ls \"a b\"\n","#,
                r#""srcNode":"laptop.example.ts.net","srcNodeID":"nABC","srcNodeTags":["tag:a","tag:b"],"#,
                r#""srcNodeUserID":30585448562688899,"srcNodeUser":"u@example.com","#,
                r#""env":{"TERM":"xterm","A":"b"},"sshUser":"root","localUser":"root","#,
                r#""connectionID":"ssh-conn-20260101T000000-0123456789","#,
                r#""kubernetes":{"PodName":"p","Namespace":"n","Container":"c","SessionType":"exec"},"#,
                r#""castkeep":{"recording":"0123456789abcdef0123456789abcdef","node":"web1","kind":"exec","#,
                r#""client":"castkeep/0.1.0","sourceBy":"registry"}}"#,
                "\n"
            )
        );
    }

    #[test]
    fn keys_that_are_always_there_and_those_that_are_not() {
        assert_eq!(
            Header::default().encode().unwrap(),
            concat!(
                r#"{"version":2,"width":0,"height":0,"timestamp":0,"srcNode":"","srcNodeID":"","env":null,"#,
                r#""sshUser":"","localUser":"","connectionID":""}"#,
                "\n"
            )
            .as_bytes()
        );
    }

    #[test]
    fn what_is_written_is_read() {
        let header = full();
        assert_eq!(Header::parse(&header.encode().unwrap()), Ok(header.clone()));
        let continued = Header::parse(&header.encode_continuation(u64::MAX).unwrap()).unwrap();
        let continues = continued.continues.clone().unwrap();
        assert_eq!(continues.offset, u64::MAX);
        assert_eq!(continues.recording, "0123456789abcdef0123456789abcdef");
        assert_eq!(Header { continues: None, ..continued.clone() }, header);
        assert_eq!(Header::parse(&continued.encode().unwrap()), Ok(continued));
        assert!(Header::default().encode_continuation(1).is_err());
    }

    #[test]
    fn a_long_command_is_cut_alike_in_every_part() {
        for c in ["x", "\u{1}", "€", "\""] {
            let header = Header { command: Some(c.repeat(20_000)), ..full() };
            let first = header.encode().unwrap();
            let later = header.encode_continuation(u64::MAX).unwrap();
            assert!(later.len() <= HEADER_LINE_BYTES, "{}", later.len());
            assert!(later.len() > HEADER_LINE_BYTES - 64, "{}", later.len());
            let first = Header::parse(&first).unwrap();
            assert_eq!(first.command, Header::parse(&later).unwrap().command);
            assert!(header.command.unwrap().starts_with(&first.command.unwrap()));
        }
        let node = "x".repeat(HEADER_LINE_BYTES);
        assert_eq!(Header { src_node: node, ..full() }.encode(), Err(Error::TooBig));
    }

    #[test]
    fn reads_what_others_write() {
        let old = br#"{ "env": null, "version": 2.0, "srcNodeTags": null, "width": 1e9, "height": -3, "timestamp": 1.5e9,
            "theme": {"fg": "white"}, "command": null, "srcNodeUserID": 30585448562688899, "sshUser": 7 }"#;
        let header = Header::parse(old).unwrap();
        assert_eq!((header.width, header.height, header.timestamp), (65_535, 0, 1_500_000_000));
        assert_eq!(header.src_node_user_id, Some(30_585_448_562_688_899));
        assert_eq!((header.env, header.command, header.ssh_user), (None, None, String::new()));

        let v3 = br#"{"version":3,"term":{"cols":100,"rows":30,"type":"xterm-256color"},"timestamp":5,"env":{"SHELL":"/bin/sh"}}"#;
        let header = Header::parse(v3).unwrap();
        assert_eq!((header.version, header.width, header.height), (3, 100, 30));
        assert_eq!(header.env.unwrap().last().unwrap().1, "xterm-256color");

        assert_eq!(Header::parse(b"{\"version\":2,\"x\":\"\xff\"}\n").unwrap(), Header::default());
        assert_eq!(Header::parse(b"{\"version\":2}").unwrap().display_size(), (80, 24));
        let huge = Header::parse(b"{\"version\":2,\"width\":60000,\"height\":1}").unwrap();
        assert_eq!(huge.display_size(), (1000, 1));
    }

    #[test]
    fn what_is_no_header_is_said_to_be_none() {
        for bad in
            [&b""[..], b"{}", b"[1,2]", b"null", b"{\"version\":\"2\"}", b"{\"version\":2", b"\xff"]
        {
            assert_eq!(Header::parse(bad), Err(DecodeError::NotAHeader), "{bad:?}");
        }
        assert_eq!(Header::parse(b"{\"version\":1}"), Err(DecodeError::Version(1)));
        assert_eq!(Header::parse(b"{\"version\":-5}"), Err(DecodeError::Version(255)));
        assert_eq!(Header::parse("[".repeat(100_000).as_bytes()), Err(DecodeError::NotAHeader));
    }
}
