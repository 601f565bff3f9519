//! v2 with and without the extension, on HTTP/2.

use alloc::string::String;

use super::h1::{AGENT, Written, ack_period, ascii};
use super::{Found, Protocol};
use crate::error::{Error, Link, PeerFault};
use crate::http2::{Code, Config, Connection, Event};
use crate::time::{Span, Tick};
use crate::upload::wire::{
    Decimal, Features, H_ACK_MS, H_ATTEMPT, H_COMMIT, H_FEATURES, H_OFFSET, H_RECORDING, H_RESUME,
    H_WINDOW, PATH_V2, ResumeHeaders, format_id,
};

#[derive(Debug)]
pub(super) struct Wire {
    connection: Connection,
    authority: String,
    scheme: &'static str,
    probe: Result<u32, Error>,
    post: Option<u32>,
    /// The probe's answer: whether the extension is offered.
    extension: Option<bool>,
    ack: Option<Span>,
    accepted: bool,
    /// The answer ended; to be told before anything else.
    ended: bool,
    /// Bytes of the answer that were lent and are to be given back.
    lent: Option<(u32, usize)>,
}

impl Wire {
    pub(super) fn new(authority: &str, tls: bool) -> Self {
        let mut connection = Connection::client(&CONFIG);
        let scheme = if tls { "https" } else { "http" };
        let fields = [
            (":method", "HEAD"),
            (":scheme", scheme),
            (":authority", authority),
            (":path", PATH_V2),
            ("user-agent", AGENT),
        ];
        let probe = connection.open(&fields, true);
        Self {
            connection,
            authority: String::from(authority),
            scheme,
            probe,
            post: None,
            extension: None,
            ack: None,
            accepted: false,
            ended: false,
            lent: None,
        }
    }

    pub(super) const fn offers_commit(&self) -> Option<bool> {
        self.extension
    }

    pub(super) fn post(&mut self, resume: &ResumeHeaders) -> Result<(), Error> {
        let (id, secret) = (format_id(&resume.recording), format_id(&resume.secret));
        let [attempt, offset, window] =
            [resume.attempt, resume.offset, resume.window].map(Decimal::new);
        let fields = [
            (":method", "POST"),
            (":scheme", self.scheme),
            (":authority", self.authority.as_str()),
            (":path", PATH_V2),
            ("user-agent", AGENT),
            (H_RECORDING, ascii(&id)),
            (H_RESUME, ascii(&secret)),
            (H_ATTEMPT, attempt.as_str()),
            (H_WINDOW, window.as_str()),
            (H_OFFSET, offset.as_str()),
        ];
        let count = match (self.extension, resume.offset) {
            (Some(true), 0) => 9,
            (Some(true), _) => 10,
            _ => 5,
        };
        let fields = fields.get(..count).unwrap_or_default();
        self.post = Some(self.connection.open(fields, false)?);
        Ok(())
    }

    pub(super) fn poll_queued(&mut self, out: &mut [u8]) -> usize {
        self.connection.poll_transmit(out)
    }

    pub(super) fn write(&mut self, data: &[u8], end: bool, out: &mut [u8]) -> Written {
        let Some(post) = self.post else { return Written::default() };
        let queued = self.connection.poll_transmit(out);
        let mut done = Written { written: queued, ..Written::default() };
        let Some(room) = out.get_mut(queued..) else { return done };
        if self.connection.wants_write() {
            return done;
        }
        // Nothing is queued any more, so whatever is written is a DATA frame.
        let sent = self.connection.write_data(post, data, end, room);
        done.taken = sent.taken;
        done.written = queued.saturating_add(sent.written);
        done.ended = end && sent.taken == data.len() && sent.written > 0;
        done
    }

    pub(super) fn handle_input<'a>(
        &mut self,
        now: Tick,
        input: &mut &'a [u8],
    ) -> Option<Found<'a>> {
        if let Some((stream, n)) = self.lent.take() {
            self.connection.credit(stream, n);
        }
        if core::mem::take(&mut self.ended) {
            return Some(Found::Ended);
        }
        loop {
            match self.connection.handle_input(now, input)? {
                Event::Headers { stream, fields, end, .. } => {
                    let Some(status) = fields.status() else {
                        return Some(Found::Failed(Error::Peer(PeerFault::Http)));
                    };
                    if status < 200 {
                        continue;
                    }
                    if self.probe == Ok(stream) && self.extension.is_none() {
                        let features = fields.get(H_FEATURES).map(Features::parse);
                        let extension = features.is_some_and(Features::usable);
                        self.extension = Some(extension);
                        self.ack = ack_period(fields.get(H_ACK_MS));
                        let refused = matches!(status, 403 | 429 | 503 | 507)
                            .then_some(Error::Peer(PeerFault::Status(status)));
                        let supported = status == 200;
                        return Some(Found::Probe { supported, extension, ack: self.ack, refused });
                    }
                    if self.post != Some(stream) || self.accepted {
                        continue;
                    }
                    if status != 200 {
                        return Some(Found::Failed(Error::Peer(PeerFault::Status(status))));
                    }
                    self.accepted = true;
                    self.ended = end;
                    let commit = fields.get(H_COMMIT).and_then(|v| v.parse().ok());
                    let commit = commit.filter(|_| self.extension == Some(true));
                    let protocol = if commit.is_some() { Protocol::V2Commit } else { Protocol::V2 };
                    return Some(Found::Accepted { protocol, commit, ack: self.ack });
                }
                Event::Data { stream, data, end } => {
                    if self.post != Some(stream) || !self.accepted {
                        self.connection.credit(stream, data.len());
                        continue;
                    }
                    self.ended |= end;
                    if !data.is_empty() {
                        self.lent = Some((stream, data.len()));
                        return Some(Found::Acks(data));
                    }
                    if core::mem::take(&mut self.ended) {
                        return Some(Found::Ended);
                    }
                }
                Event::Reset { stream, .. } => {
                    if self.post == Some(stream) {
                        return Some(Found::Failed(Error::Link(Link::Reset)));
                    }
                    if self.probe == Ok(stream) && self.extension.is_none() {
                        return Some(Found::Unsupported);
                    }
                }
                Event::GoAway { last, code } => {
                    let lost = match self.post {
                        Some(post) => post > last,
                        None => true,
                    };
                    if lost {
                        let e = match code {
                            Code::EnhanceYourCalm => Error::Peer(PeerFault::Flood),
                            _ => Error::Link(Link::Closed),
                        };
                        return Some(Found::Failed(e));
                    }
                }
                Event::Failed(_) => return Some(Found::Failed(Error::Peer(PeerFault::Http))),
                Event::Pong => {}
            }
        }
    }
}

/// Only small ack objects come this way.
const CONFIG: Config = Config { stream_window: 65_535, connection_window: 65_535, max_streams: 0 };
