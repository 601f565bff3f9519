//! The first line of a cast.

use alloc::{string::String, vec::Vec};

use super::DecodeError;
use crate::Error;

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
        todo!()
    }

    /// The header line of a part that begins at `offset`: as [`Header::encode`], plus `castkeepContinues`.
    ///
    /// # Errors
    /// As [`Header::encode`]; `Misuse` when there is no `castkeep` object and so no recording id.
    pub fn encode_continuation(&self, offset: u64) -> Result<Vec<u8>, Error> {
        todo!("{offset}")
    }

    /// Reads a header line of version 2 or 3, with or without its LF. Missing, null and unknown keys are no error.
    ///
    /// # Errors
    /// When the line is not a JSON object, or has another version.
    pub fn parse(line: &[u8]) -> Result<Self, DecodeError> {
        todo!("{line:?}")
    }

    /// The size to play with: 80x24 for a session without a terminal, else clamped as [`super::clamp_size`] does.
    #[must_use]
    pub fn display_size(&self) -> (u16, u16) {
        todo!()
    }

    /// Whether `r` events of this cast are `ROWSxCOLS`, as those of Tailscale's Kubernetes proxy are.
    #[must_use]
    pub const fn rows_first(&self) -> bool {
        self.kubernetes.is_some() && self.castkeep.is_none()
    }
}
