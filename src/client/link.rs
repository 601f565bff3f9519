//! A connection of a session with the bytes that wait for its socket.

use alloc::vec::Vec;

use super::host::LinkWants;
#[cfg(feature = "client")]
use super::sys::Wants;
use super::transport::{Got, Links, Transport};
use crate::error::Error;
use crate::limits;
use crate::session::LinkId;
use crate::space;
use crate::time::Tick;

/// A link that its machine knows.
pub(super) struct LinkIo {
    pub(super) id: LinkId,
    pub(super) up: bool,
    /// The peer sends nothing any more.
    pub(super) eof: bool,
    transport: Transport,
    out: Outgoing,
    /// The socket took less than it was given.
    blocked: bool,
}

/// A link that its machine has closed: its last bytes still go out, and its peer's end is waited for.
pub(super) struct Closing {
    transport: Transport,
    out: Outgoing,
    finished: bool,
    pub(super) until: Tick,
}

/// 0 <= start <= end <= bytes.len()
struct Outgoing {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl LinkIo {
    /// `out_bytes` stand between the ring and the socket.
    pub(super) fn new(id: LinkId, transport: Transport, out_bytes: usize) -> Result<Self, Error> {
        let bytes = space::zeros(out_bytes)?;
        let out = Outgoing { bytes, start: 0, end: 0 };
        Ok(Self { id, up: false, eof: false, transport, out, blocked: false })
    }

    pub(super) const fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn establish(&mut self, links: Links<'_>) -> Result<bool, Error> {
        self.up = self.transport.establish(links)?;
        Ok(self.up)
    }

    pub(super) fn read(&mut self, buf: &mut [u8], links: Links<'_>) -> Result<Got, Error> {
        self.transport.read(buf, links)
    }

    pub(super) fn wants(&self, links: Links<'_>) -> LinkWants {
        let wants = self.transport.wants(!self.out.is_empty(), links);
        LinkWants { read: wants.read && !self.eof, ..wants }
    }

    #[cfg(feature = "client")]
    pub(super) fn socket_wants(&self) -> Wants {
        let wants = self.transport.socket_wants(!self.out.is_empty());
        Wants { read: wants.read && !self.eof, ..wants }
    }

    /// Lets `fill` write the next bytes when the ones before are gone.
    pub(super) fn fill(&mut self, fill: impl FnOnce(&mut [u8]) -> usize) {
        if self.up && self.out.is_empty() {
            let end = fill(&mut self.out.bytes).min(self.out.bytes.len());
            self.out.start = 0;
            self.out.end = end;
        }
    }

    /// The socket is ready again.
    pub(super) const fn unblock(&mut self) {
        self.blocked = false;
    }

    /// Sends; whether everything went out and there was something.
    pub(super) fn send(&mut self, links: Links<'_>) -> Result<bool, Error> {
        if !self.up || self.blocked {
            return Ok(false);
        }
        if self.out.is_empty() {
            self.transport.flush()?;
            return Ok(false);
        }
        self.out.send(&mut self.transport, links)?;
        self.blocked = !self.out.is_empty();
        Ok(!self.blocked)
    }

    pub(super) fn reset(self, links: Links<'_>) {
        self.transport.reset(links);
    }

    /// Closes it as it stands.
    pub(super) fn end(self, links: Links<'_>) {
        self.transport.end(links, false);
    }

    pub(super) fn close(self, now: Tick, links: Links<'_>) -> Option<Closing> {
        if !self.up {
            self.transport.end(links, true);
            return None;
        }
        let until = now.after(limits::LINK_CLOSE);
        let mut closing =
            Closing { transport: self.transport, out: self.out, finished: false, until };
        if closing.advance(&mut [], links) {
            return Some(closing);
        }
        closing.end(links);
        None
    }
}

impl Closing {
    #[cfg(feature = "client")]
    pub(super) const fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn wants(&self, links: Links<'_>) -> LinkWants {
        self.transport.wants(!self.out.is_empty(), links)
    }

    #[cfg(feature = "client")]
    pub(super) fn socket_wants(&self) -> Wants {
        self.transport.socket_wants(!self.out.is_empty())
    }

    pub(super) fn end(self, links: Links<'_>) {
        self.transport.end(links, false);
    }

    /// Sends and reads on; whether it has to live on.
    pub(super) fn advance(&mut self, scratch: &mut [u8], links: Links<'_>) -> bool {
        if self.out.send(&mut self.transport, links).is_err() {
            return false;
        }
        if self.out.is_empty() && !self.finished {
            self.finished = true;
            self.transport.finish();
        }
        if scratch.is_empty() {
            return true;
        }
        matches!(self.transport.read(scratch, links), Ok(Got::Bytes(_) | Got::Nothing))
    }
}

impl Outgoing {
    const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    fn send(&mut self, transport: &mut Transport, links: Links<'_>) -> Result<(), Error> {
        while let Some(rest) = self.bytes.get(self.start..self.end).filter(|r| !r.is_empty()) {
            let sent = transport.write(rest, links)?;
            if sent == 0 {
                break;
            }
            self.start = self.start.saturating_add(sent).min(self.end);
        }
        Ok(())
    }
}
