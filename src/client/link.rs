//! A connection of a session with the bytes that wait for its socket.

use rustix::event::PollFlags;

use super::transport::{Got, Transport};
use crate::error::Error;
use crate::limits;
use crate::session::LinkId;
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
    pub(super) fn new(id: LinkId, transport: Transport) -> Result<Self, Error> {
        let mut bytes = Vec::new();
        bytes.try_reserve_exact(limits::LINK_OUT_BYTES).map_err(|_| Error::NoMemory)?;
        bytes.resize(limits::LINK_OUT_BYTES, 0);
        let out = Outgoing { bytes, start: 0, end: 0 };
        Ok(Self { id, up: false, eof: false, transport, out, blocked: false })
    }

    pub(super) const fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn establish(&mut self) -> Result<bool, Error> {
        self.up = self.transport.establish()?;
        Ok(self.up)
    }

    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<Got, Error> {
        self.transport.read(buf)
    }

    pub(super) fn wants(&self) -> PollFlags {
        let mut wants = self.transport.wants(!self.out.is_empty());
        if self.eof {
            wants.remove(PollFlags::IN);
        }
        wants
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
    pub(super) fn send(&mut self) -> Result<bool, Error> {
        if !self.up || self.blocked {
            return Ok(false);
        }
        if self.out.is_empty() {
            self.transport.flush()?;
            return Ok(false);
        }
        self.out.send(&mut self.transport)?;
        self.blocked = !self.out.is_empty();
        Ok(!self.blocked)
    }

    pub(super) fn reset(self) {
        self.transport.reset();
    }

    pub(super) fn close(self, now: Tick) -> Option<Closing> {
        if !self.up {
            return None;
        }
        let until = now.after(limits::LINK_CLOSE);
        let mut closing =
            Closing { transport: self.transport, out: self.out, finished: false, until };
        closing.advance(&mut []).then_some(closing)
    }
}

impl Closing {
    pub(super) const fn transport(&self) -> &Transport {
        &self.transport
    }

    pub(super) fn wants(&self) -> PollFlags {
        self.transport.wants(!self.out.is_empty())
    }

    /// Sends and reads on; whether it has to live on.
    pub(super) fn advance(&mut self, scratch: &mut [u8]) -> bool {
        if self.out.send(&mut self.transport).is_err() {
            return false;
        }
        if self.out.is_empty() && !self.finished {
            self.finished = true;
            self.transport.finish();
        }
        if scratch.is_empty() {
            return true;
        }
        matches!(self.transport.read(scratch), Ok(Got::Bytes(_) | Got::Nothing))
    }
}

impl Outgoing {
    const fn is_empty(&self) -> bool {
        self.start >= self.end
    }

    fn send(&mut self, transport: &mut Transport) -> Result<(), Error> {
        while let Some(rest) = self.bytes.get(self.start..self.end).filter(|r| !r.is_empty()) {
            let sent = transport.write(rest)?;
            if sent == 0 {
                break;
            }
            self.start = self.start.saturating_add(sent).min(self.end);
        }
        Ok(())
    }
}
