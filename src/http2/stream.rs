//! Streams: their states (RFC 9113, 5.1) and windows.

use super::frame::MAX_31;
use crate::limits::H2_CLOSED_STREAMS;

/// One open or half-closed stream.
///
/// ```text
///            recv_open  send_open
/// open           x          x
/// half (remote)             x       END_STREAM came
/// half (local)   x                  END_STREAM was sent
/// closed                            removed from the list
/// ```
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: u32,
    pub(super) recv_open: bool,
    pub(super) send_open: bool,
    /// The head that counts has come: what follows is data and trailers.
    pub(super) head_done: bool,
    /// A response head went out (server).
    pub(super) answered: bool,
    pub(super) recv: RecvWindow,
    /// Below zero after the peer made its initial window smaller.
    pub(super) send_window: i64,
    pub(super) content_length: Option<u64>,
    pub(super) received: u64,
}

impl Stream {
    pub(super) fn new(id: u32, recv_window: u32, send_window: u32) -> Self {
        Self {
            id,
            recv_open: true,
            send_open: true,
            head_done: false,
            answered: false,
            recv: RecvWindow::new(recv_window),
            send_window: i64::from(send_window),
            content_length: None,
            received: 0,
        }
    }

    pub(super) const fn is_closed(&self) -> bool {
        !self.recv_open && !self.send_open
    }

    /// Whether the body is as long as the head said.
    pub(super) fn length_fits(&self, end: bool) -> bool {
        match self.content_length {
            None => true,
            Some(n) if end => self.received == n,
            Some(n) => self.received <= n,
        }
    }
}

/// What the peer may send.
#[derive(Debug)]
pub(super) struct RecvWindow {
    size: u32,
    /// What the peer may send now.
    left: u32,
    /// What was done with and not told yet.
    credit: u32,
}

impl RecvWindow {
    pub(super) const fn new(size: u32) -> Self {
        Self { size, left: size, credit: 0 }
    }

    /// The peer sent `n`; false when it was not allowed to.
    pub(super) fn take(&mut self, n: u32) -> bool {
        match self.left.checked_sub(n) {
            Some(left) => {
                self.left = left;
                true
            }
            None => false,
        }
    }

    /// `n` are done with. Some: tell the peer so much. Told in steps of an eighth of the window: a sender that used up its
    /// window always gets one, and small DATA does not cost a frame each.
    pub(super) fn credit(&mut self, n: u32) -> Option<u32> {
        let owed = self.size.saturating_sub(self.left);
        self.credit = self.credit.saturating_add(n).min(owed);
        if self.credit == 0 || self.credit < self.size / 8 {
            return None;
        }
        let credit = core::mem::take(&mut self.credit);
        self.left = self.left.saturating_add(credit);
        Some(credit)
    }
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Closed {
    /// Both sides ended it, or the peer reset it.
    Ended,
    /// We reset it: frames that were under way are read over.
    ResetByUs,
}

/// The streams of a connection: few, so a list.
#[derive(Debug, Default)]
pub(super) struct Streams {
    open: Vec<Stream>,
    closed: Vec<(u32, Closed)>,
    oldest: usize,
}

impl Streams {
    pub(super) fn get(&self, id: u32) -> Option<&Stream> {
        self.open.iter().find(|s| s.id == id)
    }

    pub(super) fn get_mut(&mut self, id: u32) -> Option<&mut Stream> {
        self.open.iter_mut().find(|s| s.id == id)
    }

    pub(super) fn insert(&mut self, stream: Stream) {
        self.open.push(stream);
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    /// Forgets the stream when both sides ended it.
    pub(super) fn sweep(&mut self, id: u32) {
        if self.get(id).is_some_and(Stream::is_closed) {
            self.close(id, Closed::Ended);
        }
    }

    /// Ends a stream; false when there was none.
    pub(super) fn close(&mut self, id: u32, how: Closed) -> bool {
        let before = self.open.len();
        self.open.retain(|s| s.id != id);
        if self.open.is_empty() {
            // An idle connection keeps nothing.
            self.open = Vec::new();
        }
        self.remember(id, how);
        before != self.open.len()
    }

    pub(super) fn remember(&mut self, id: u32, how: Closed) {
        if let Some(slot) = self.closed.iter_mut().find(|(i, _)| *i == id) {
            slot.1 = how;
        } else if self.closed.len() < H2_CLOSED_STREAMS {
            self.closed.push((id, how));
        } else if let Some(slot) = self.closed.get_mut(self.oldest) {
            *slot = (id, how);
            self.oldest = self.oldest.saturating_add(1) % H2_CLOSED_STREAMS;
        }
    }

    pub(super) fn closed(&self, id: u32) -> Option<Closed> {
        self.closed.iter().find(|(i, _)| *i == id).map(|(_, how)| *how)
    }

    /// The peer changed its initial window; false when a window overflows.
    pub(super) fn shift_send_windows(&mut self, by: i64) -> bool {
        self.open.iter_mut().all(|s| {
            s.send_window = s.send_window.saturating_add(by);
            s.send_window <= i64::from(MAX_31)
        })
    }
}
