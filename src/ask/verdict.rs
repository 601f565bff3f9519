//! What policy says of a session.

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;
use crate::limits::{ASK_FIELD_BYTES, ASK_LIST_MAX, AUTHORITY_BYTES, MESSAGE_BYTES, RECORDERS_MAX};
use crate::space;
use crate::upload::json::Reader;

/// One answer. A later one of the same connection takes its place.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Verdict {
    /// Of the policy; it only rises.
    pub version: u64,
    /// Whether the session may take place.
    pub accept: bool,
    /// For the user: a banner, or why not. Without a line end; may be empty.
    pub message: String,
    /// Whether it is to be recorded.
    pub record: bool,
    /// In the order in which they are tried; at most `limits::RECORDERS_MAX`.
    pub recorders: Vec<Named>,
    /// Set: fail closed at the start.
    pub reject_message: Option<String>,
    /// Set: fail closed in the middle.
    pub terminate_message: Option<String>,
    /// The session ends after so many seconds; 0: it does not.
    pub session_seconds: u64,
    /// Whether failures are to be told.
    pub notify: bool,
    /// Whether the rule lets named people in without recording: everybody is told.
    pub break_glass: bool,
    /// The user that it may run as; empty: any.
    pub local_user: String,
    /// Who the source is, as far as it could be found out.
    pub identity: Option<Identity>,
}

/// One address of a recorder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named {
    /// `ip:port`, `[v6]:port` or `unix:/path`.
    pub address: String,
    /// Addresses of one recorder have the same number.
    pub group: u16,
    /// The name that its certificate must be for; none: clear text.
    pub tls: Option<String>,
}

/// Who the source is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// Name of its node.
    pub node: String,
    /// Its stable id.
    pub node_id: String,
    /// Its tags.
    pub tags: Vec<String>,
    /// Id of its user; only without tags.
    pub user_id: Option<i64>,
    /// Login name of its user; empty with tags.
    pub user: String,
    /// How it is known: `whois`, `registry`, `certificate`, `claimed`.
    pub by: String,
}

impl Verdict {
    /// Reads one line of an answer. Unknown keys are left aside; a known one of the wrong kind makes all of it wrong.
    ///
    /// # Errors
    /// [`Error::Peer`] for what is not a verdict, `NoMemory`.
    pub fn parse(line: &[u8]) -> Result<Self, Error> {
        let mut verdict = Self { record: true, ..Self::default() };
        let mut said = None;
        let mut r = Reader::new(line);
        r.object(|r, key| {
            match key {
                "version" => verdict.version = r.unsigned()?,
                "verdict" => {
                    let word = r.string()?;
                    said = Some(match word.as_str() {
                        "accept" => true,
                        "reject" => false,
                        _ => return None,
                    });
                }
                "message" => verdict.message = text(r, MESSAGE_BYTES)?,
                "record" => verdict.record = r.boolean()?,
                "recorders" => {
                    let all = &mut verdict.recorders;
                    r.array(|r| {
                        let named = named(r)?;
                        // More cannot be tried in time.
                        if all.len() < RECORDERS_MAX {
                            space::push(all, named).ok()
                        } else {
                            Some(())
                        }
                    })?;
                }
                "rejectMessage" => verdict.reject_message = Some(text(r, MESSAGE_BYTES)?),
                "terminateMessage" => verdict.terminate_message = Some(text(r, MESSAGE_BYTES)?),
                "sessionSeconds" => verdict.session_seconds = r.unsigned()?,
                "notify" => verdict.notify = r.boolean()?,
                "breakGlass" => verdict.break_glass = r.boolean()?,
                "localUser" => verdict.local_user = text(r, ASK_FIELD_BYTES)?,
                "identity" => verdict.identity = Some(identity(r)?),
                _ => r.skip_value()?,
            }
            Some(())
        })
        .filter(|()| r.is_done())
        .ok_or(BROKEN)?;
        verdict.accept = said.ok_or(BROKEN)?;
        Ok(verdict)
    }
}

fn named(r: &mut Reader<'_>) -> Option<Named> {
    let mut named = Named::default();
    r.object(|r, key| {
        match key {
            "address" => named.address = text(r, AUTHORITY_BYTES)?,
            "group" => named.group = u16::try_from(r.unsigned()?).ok()?,
            "tls" => named.tls = Some(text(r, AUTHORITY_BYTES)?),
            _ => r.skip_value()?,
        }
        Some(())
    })?;
    let printable = |text: &str| text.bytes().all(|b| b.is_ascii_graphic());
    let good = !named.address.is_empty() && printable(&named.address);
    (good && named.tls.as_deref().is_none_or(|name| !name.is_empty() && printable(name)))
        .then_some(named)
}

fn identity(r: &mut Reader<'_>) -> Option<Identity> {
    let mut identity = Identity::default();
    r.object(|r, key| {
        match key {
            "node" => identity.node = text(r, ASK_FIELD_BYTES)?,
            "nodeID" => identity.node_id = text(r, ASK_FIELD_BYTES)?,
            "user" => identity.user = text(r, ASK_FIELD_BYTES)?,
            "by" => identity.by = text(r, ASK_FIELD_BYTES)?,
            "userID" => identity.user_id = Some(r.signed()?),
            "tags" => {
                let tags = &mut identity.tags;
                r.array(|r| {
                    let tag = text(r, ASK_FIELD_BYTES)?;
                    if tags.len() < ASK_LIST_MAX { space::push(tags, tag).ok() } else { Some(()) }
                })?;
            }
            _ => r.skip_value()?,
        }
        Some(())
    })?;
    Some(identity)
}

/// A text within its bound; null is none of them.
fn text(r: &mut Reader<'_>, most: usize) -> Option<String> {
    r.string().filter(|t| t.len() <= most)
}

const BROKEN: Error = Error::Peer(crate::error::PeerFault::BadVerdict);

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = r#"{"version":12,"verdict":"accept","record":true,"localUser":"root","message":"hello","recorders":[{"address":"100.64.0.9:80","group":0},{"address":"[fd7a::9]:443","group":1,"tls":"rec2.example","new":[{}]}],"rejectMessage":"no","terminateMessage":"","sessionSeconds":90,"notify":true,"breakGlass":false,"identity":{"node":"laptop.example","nodeID":"nA","tags":[],"userID":30585448562688899,"user":"alice@example.com","by":"whois"},"acceptEnv":["LANG"]}"#;

    #[test]
    fn everything_is_read() {
        let v = Verdict::parse(WHOLE.as_bytes()).unwrap();
        assert!(v.accept && v.record && v.notify && !v.break_glass);
        assert_eq!((v.version, v.session_seconds), (12, 90));
        assert_eq!(v.recorders.len(), 2);
        assert_eq!(v.recorders[1].tls.as_deref(), Some("rec2.example"));
        assert_eq!(v.recorders[1].group, 1);
        assert_eq!(
            (v.reject_message.as_deref(), v.terminate_message.as_deref()),
            (Some("no"), Some(""))
        );
        let identity = v.identity.unwrap();
        assert_eq!(identity.user_id, Some(30_585_448_562_688_899));
        assert_eq!(identity.by, "whois");
    }

    #[test]
    fn what_is_not_a_verdict_is_refused() {
        for bad in [
            "",
            "{}",
            "null",
            "[]",
            r#"{"verdict":"maybe"}"#,
            r#"{"verdict":"accept","record":1}"#,
            r#"{"verdict":"accept","recorders":[{"address":""}]}"#,
            r#"{"verdict":"accept","recorders":[{"address":"a b:1"}]}"#,
            r#"{"verdict":"accept","recorders":["100.64.0.9:80"]}"#,
            r#"{"verdict":"accept"} x"#,
            r#"{"verdict":"accept","recorders":[{"address":"a:1","tls":""}]}"#,
        ] {
            assert!(Verdict::parse(bad.as_bytes()).is_err(), "{bad}");
        }
        assert!(!Verdict::parse(br#"{"verdict":"reject"}"#).unwrap().accept);
    }

    #[test]
    fn a_line_that_is_cut_or_changed_anywhere_is_no_panic() {
        for end in 0..WHOLE.len() {
            assert!(Verdict::parse(&WHOLE.as_bytes()[..end]).is_err(), "{end}");
            let mut bytes = WHOLE.as_bytes().to_vec();
            for byte in [0, b'"', b'{', b']', 0xff] {
                bytes[end] = byte;
                let _ = Verdict::parse(&bytes);
            }
        }
    }
}
