//! v1 and `castkeep/1` on HTTP/1.1.

use alloc::string::String;
use alloc::vec::Vec;

use super::{Found, Protocol};
use crate::error::{Error, PeerFault};
use crate::http1::{self, LAST_CHUNK};
use crate::limits::HEAD_BYTES;
use crate::space;
use crate::time::Span;
use crate::upload::upgrade::{END_FRAME, encode_frame};
use crate::upload::wire::{
    Decimal, H_ACK_MS, H_ATTEMPT, H_COMMIT, H_OFFSET, H_RECORDING, H_RESUME, H_WINDOW,
    PATH_UPGRADE, PATH_V1, ResumeHeaders, UPGRADE, format_id,
};

/// What was written of the body.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Written {
    pub(super) taken: usize,
    pub(super) written: usize,
    /// The end went out.
    pub(super) ended: bool,
}

#[derive(Debug)]
pub(super) struct Wire {
    upgrade: bool,
    /// Of one that could not be copied nothing is asked.
    authority: Result<String, Error>,
    /// The request head.
    head: Vec<u8>,
    /// 0 <= head_sent <= head.len()
    head_sent: usize,
    /// The head of the answer as far as it came.
    answer: Vec<u8>,
    phase: Phase,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Before 100, 101 or a refusal.
    Head,
    /// v1 behind the 100: the final answer.
    Final,
    /// Behind the 101: ack objects.
    Acks,
    /// Nothing of interest follows.
    Over,
}

impl Wire {
    pub(super) fn new(upgrade: bool, authority: &str) -> Self {
        Self {
            upgrade,
            authority: space::string(authority),
            head: Vec::new(),
            head_sent: 0,
            answer: Vec::new(),
            phase: Phase::Head,
        }
    }

    pub(super) const fn is_upgrade(&self) -> bool {
        self.upgrade
    }

    pub(super) const fn ends_at_eof(&self) -> bool {
        matches!(self.phase, Phase::Acks)
    }

    pub(super) fn post(&mut self, resume: &ResumeHeaders) -> Result<(), Error> {
        let mut head = space::zeros(REQUEST_BYTES)?;
        let host = ("Host", self.authority.as_ref().map_err(|e| *e)?.as_str());
        let agent = ("User-Agent", AGENT);
        let n = if self.upgrade {
            let (id, secret) = (format_id(&resume.recording), format_id(&resume.secret));
            let [attempt, offset, window] =
                [resume.attempt, resume.offset, resume.window].map(Decimal::new);
            let fields = [
                host,
                agent,
                ("Connection", "Upgrade"),
                ("Upgrade", UPGRADE),
                (H_RECORDING, ascii(&id)),
                (H_RESUME, ascii(&secret)),
                (H_ATTEMPT, attempt.as_str()),
                (H_WINDOW, window.as_str()),
                (H_OFFSET, offset.as_str()),
            ];
            let fields = if resume.offset == 0 { fields.get(..8) } else { Some(&fields[..]) };
            http1::write_request(&mut head, "POST", PATH_UPGRADE, fields.unwrap_or_default())?
        } else {
            let fields =
                [host, agent, ("Transfer-Encoding", "chunked"), ("Expect", "100-continue")];
            http1::write_request(&mut head, "POST", PATH_V1, &fields)?
        };
        head.truncate(n);
        self.head = head;
        Ok(())
    }

    pub(super) fn poll_head(&mut self, out: &mut [u8]) -> usize {
        let rest = self.head.get(self.head_sent..).unwrap_or_default();
        let n = rest.len().min(out.len());
        if let (Some(from), Some(to)) = (rest.get(..n), out.get_mut(..n)) {
            space::copy(to, from);
        }
        self.head_sent = self.head_sent.saturating_add(n);
        n
    }

    pub(super) fn write(&self, data: &[u8], end: bool, out: &mut [u8]) -> Written {
        let mut done = Written::default();
        if self.head_sent < self.head.len() {
            return done;
        }
        if !data.is_empty() {
            let sent =
                if self.upgrade { encode_frame(data, out) } else { http1::encode_chunk(data, out) };
            done.taken = sent.taken;
            done.written = sent.written;
        }
        if end && done.taken == data.len() {
            let mark: &[u8] = if self.upgrade { &END_FRAME } else { LAST_CHUNK };
            let at = done.written;
            if let Some(to) = out.get_mut(at..at.saturating_add(mark.len())) {
                space::copy(to, mark);
                done.written = at.saturating_add(mark.len());
                done.ended = true;
            }
        }
        done
    }

    pub(super) fn handle_input<'a>(&mut self, input: &mut &'a [u8]) -> Option<Found<'a>> {
        match self.phase {
            Phase::Over => {
                *input = &[];
                None
            }
            Phase::Acks => {
                let bytes = core::mem::take(input);
                (!bytes.is_empty()).then_some(Found::Acks(bytes))
            }
            Phase::Head | Phase::Final => {
                // What belongs to the head is copied until the head is whole; the rest of the input stays where it is.
                let before = self.answer.len();
                let room = HEAD_BYTES.saturating_sub(before);
                let more = input.get(..room.min(input.len())).unwrap_or_default();
                if let Err(e) = space::extend(&mut self.answer, more) {
                    return Some(Found::Failed(e));
                }
                let (found, used) = match http1::parse_response(&self.answer) {
                    Ok(None) => {
                        *input = &[];
                        return None;
                    }
                    Err(_) => (Some(Found::Failed(Error::Peer(PeerFault::Http))), before),
                    Ok(Some((head, used))) => (self.answered(&head), used),
                };
                let taken = used.saturating_sub(before);
                *input = input.get(taken..).unwrap_or_default();
                self.answer.clear();
                match found {
                    Some(Found::Accepted { .. }) => {
                        self.phase = if self.upgrade { Phase::Acks } else { Phase::Final };
                    }
                    Some(_) => self.phase = Phase::Over,
                    None => {}
                }
                match found {
                    None if !input.is_empty() => self.handle_input(input),
                    found => found,
                }
            }
        }
    }

    /// None: an interim answer that means nothing.
    fn answered(&self, head: &http1::ResponseHead<'_>) -> Option<Found<'static>> {
        let status = head.status;
        let refused = Found::Failed(Error::Peer(PeerFault::Status(status)));
        Some(match (self.upgrade, self.phase, status) {
            (true, Phase::Head, 101) if head.fields.list_has("upgrade", UPGRADE) => {
                let commit = head.fields.get(H_COMMIT).and_then(|v| v.parse().ok());
                if commit.is_none() {
                    return Some(Found::Failed(Error::Peer(PeerFault::Http)));
                }
                Found::Accepted {
                    protocol: Protocol::Upgrade,
                    commit,
                    ack: ack_period(head.fields.get(H_ACK_MS)),
                }
            }
            (true, Phase::Head, 400 | 403 | 408 | 409 | 429 | 431 | 503 | 507) => refused,
            (true, Phase::Head, 100 | 102..=199) => return None,
            (true, Phase::Head, _) => Found::Unsupported,
            (false, Phase::Head, 100) => {
                Found::Accepted { protocol: Protocol::V1, commit: None, ack: None }
            }
            (false, _, 100..=199) => return None,
            (false, Phase::Final, 200) => Found::Stored,
            (false, Phase::Head, 200) => Found::Failed(Error::Peer(PeerFault::EndedEarly)),
            _ => refused,
        })
    }
}

/// `castkeep-ack-ms`, bounded: no peer makes us wait for ever.
pub(super) fn ack_period(value: Option<&str>) -> Option<Span> {
    let ms: u64 = value?.parse().ok()?;
    Some(Span::from_ms(ms.min(10_000)))
}

pub(super) fn ascii(digits: &[u8]) -> &str {
    core::str::from_utf8(digits).unwrap_or_default()
}

pub(super) const AGENT: &str = concat!("castkeep/", env!("CARGO_PKG_VERSION"));

/// Longest request head: an authority, two ids, three numbers and the names.
const REQUEST_BYTES: usize = 1024;
