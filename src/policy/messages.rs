//! What users are told when a recording is enforced and fails.

/// The words of a policy. Tailscale's own are not public, so these are ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// No recorder could be reached, so the session does not begin.
    pub reject: String,
    /// The recorder was lost, so the session ends.
    pub terminate: String,
}

impl Default for Messages {
    fn default() -> Self {
        Self {
            reject: "This session must be recorded, and no recorder can be reached.".into(),
            terminate: "This session must be recorded, and its recorder was lost.".into(),
        }
    }
}
