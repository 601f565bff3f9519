//! Telling that a recording failed: the SSHEventNotifyRequest of the architecture, without what only the agent knows.

use alloc::vec::Vec;
use core::fmt;

use super::Identity;
use super::text::{Object, put};
use crate::error::Error;
use crate::limits::{ASK_FIELD_BYTES, AUTHORITY_BYTES};
use crate::space;

/// What happened; the numbers are upstream's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventType {
    /// Recording could not begin, and the session was refused.
    Rejected = 1,
    /// Recording failed, and the session was ended.
    Terminated = 2,
    /// Recording failed or could not begin, and the session goes on.
    Unrecorded = 3,
}

/// One notice.
#[derive(Debug)]
pub struct Notice<'a> {
    /// What happened.
    pub event: EventType,
    /// Shared by all sessions of the connection.
    pub connection_id: &'a str,
    /// The user as the client asked for.
    pub ssh_user: &'a str,
    /// The user that the session runs as.
    pub local_user: &'a str,
    /// Who the source is, as the verdict said.
    pub identity: Option<&'a Identity>,
    /// Whether the verdict lets named people in without recording.
    pub break_glass: bool,
}

impl Notice<'_> {
    /// The JSON object on the wire. `attempts`: address of the recorder and why it failed, empty for the one that was connected.
    ///
    /// # Errors
    /// `NoMemory`.
    pub fn encode<'t, T: fmt::Display>(
        &self,
        attempts: impl Iterator<Item = (&'t str, T)>,
    ) -> Result<Vec<u8>, Error> {
        let mut object = Object::new();
        object.number("EventType", self.event as u64)?;
        object.text("ConnectionID", self.connection_id, ASK_FIELD_BYTES)?;
        object.text("SSHUser", self.ssh_user, ASK_FIELD_BYTES)?;
        object.text("LocalUser", self.local_user, ASK_FIELD_BYTES)?;
        object.raw("RecordingAttempts", |out| {
            space::push(out, b'[')?;
            for (at, (recorder, message)) in attempts.enumerate() {
                if at > 0 {
                    space::push(out, b',')?;
                }
                let mut text = Text(Vec::new());
                // It only fails without memory; what there is of it is told.
                let _ = fmt::Write::write_fmt(&mut text, format_args!("{message}"));
                space::extend(out, b"{\"Recorder\":")?;
                put(out, recorder, AUTHORITY_BYTES)?;
                space::extend(out, b",\"FailureMessage\":")?;
                put(out, &space::lossy(&text.0)?, ASK_FIELD_BYTES)?;
                space::push(out, b'}')?;
            }
            space::push(out, b']')
        })?;
        if let Some(identity) = self.identity {
            object.text("castkeepNodeID", &identity.node_id, ASK_FIELD_BYTES)?;
            object.text("castkeepUser", &identity.user, ASK_FIELD_BYTES)?;
        }
        if self.break_glass {
            object.yes("castkeepBreakGlass")?;
        }
        object.finish()
    }
}

struct Text(Vec<u8>);

impl fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        space::extend(&mut self.0, s.as_bytes()).map_err(|_| fmt::Error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_stand_in_their_order() {
        let notice = Notice {
            event: EventType::Unrecorded,
            connection_id: "ssh-conn-1",
            ssh_user: "root",
            local_user: "root",
            identity: None,
            break_glass: true,
        };
        let attempts = [("100.64.0.9:80", "refused \"it\""), ("100.64.0.10:80", "")];
        let body = notice.encode(attempts.into_iter()).unwrap();
        let json: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(json["EventType"], 3);
        assert_eq!(json["RecordingAttempts"][0]["FailureMessage"], "refused \"it\"");
        assert_eq!(json["RecordingAttempts"][1]["Recorder"], "100.64.0.10:80");
        assert_eq!(json["castkeepBreakGlass"], true);
    }
}
