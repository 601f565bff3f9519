//! One upload over one link: docs/protocol.md from the client's side, without a socket.

/// How a recorder is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `POST /castkeep/1/record`: commit and resume over HTTP/1.1.
    Upgrade,
    /// `POST /record`, without acks.
    V1,
    /// `POST /v2/record`, with acks.
    V2,
    /// `POST /v2/record` with commit and resume.
    V2Commit,
}
