//! The connection as its owner sees it: everything but the reading of frames.

use super::frame::{self, Head, MAX_31};
use super::hpack::{Decoder, Encoder};
use super::receive::{Collected, Parse, Useless};
use super::stream::{Closed, RecvWindow, Stream, Streams};
use super::{Code, Config, Event, PREFACE};
use crate::error::Error;
use crate::http1::Sent;
use crate::limits::{H2_FRAME_BYTES, H2_QUEUE_BYTES};

/// One HTTP/2 connection.
///
/// ```text
/// Preface (server) ─► first SETTINGS ─► frames … ─► Failed(code): GOAWAY is queued, nothing more is read
/// ```
#[derive(Debug)]
pub struct Connection {
    pub(super) client: bool,
    pub(super) config: Config,
    pub(super) failed: Option<Code>,
    pub(super) parse: Parse,
    pub(super) collected: Collected,
    pub(super) useless: Useless,
    pub(super) decoder: Decoder,
    pub(super) streams: Streams,
    pub(super) recv: RecvWindow,
    pub(super) send_window: i64,
    pub(super) peer: Peer,
    /// The highest stream of the peer that was looked at (server).
    pub(super) last_peer_stream: u32,
    /// What GOAWAY said; streams above are refused.
    pub(super) goaway_sent: Option<u32>,
    pub(super) goaway_received: bool,
    /// The next stream that we open (client).
    pub(super) next_stream: u32,
    encoder: Encoder,
    out: Vec<u8>,
    out_at: usize,
}

/// The peer's settings, as far as we heed them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Peer {
    pub(super) initial_window: u32,
    pub(super) max_streams: u32,
}

impl Connection {
    /// The client's end; its preface and SETTINGS are queued.
    #[must_use]
    pub fn client(config: &Config) -> Self {
        let mut this = Self::new(config, true);
        this.out.extend_from_slice(PREFACE);
        this.push_first_settings(&[(frame::SET_ENABLE_PUSH, 0)]);
        this
    }

    /// The server's end; its SETTINGS are queued. It expects the whole client preface as its first input.
    #[must_use]
    pub fn server(config: &Config) -> Self {
        let mut this = Self::new(config, false);
        this.push_first_settings(&[(frame::SET_MAX_STREAMS, config.max_streams)]);
        this
    }

    fn new(config: &Config, client: bool) -> Self {
        let config = Config {
            // A peer may use the default before it has heard of ours, so ours is never smaller.
            stream_window: config.stream_window.clamp(DEFAULT_WINDOW, MAX_31),
            connection_window: config.connection_window.clamp(DEFAULT_WINDOW, MAX_31),
            max_streams: config.max_streams,
        };
        Self {
            client,
            config,
            failed: None,
            parse: Parse::start(client),
            collected: Collected::default(),
            useless: Useless::default(),
            decoder: Decoder::new(),
            streams: Streams::default(),
            recv: RecvWindow::new(config.connection_window),
            send_window: i64::from(DEFAULT_WINDOW),
            peer: Peer {
                initial_window: DEFAULT_WINDOW,
                // Until the peer says, it allows any number; we never want more than a few.
                max_streams: 100,
            },
            last_peer_stream: 0,
            goaway_sent: None,
            goaway_received: false,
            next_stream: 1,
            encoder: Encoder::new(),
            out: Vec::new(),
            out_at: 0,
        }
    }

    fn push_first_settings(&mut self, more: &[(u16, u32)]) {
        let mut settings = vec![
            (frame::SET_INITIAL_WINDOW, self.config.stream_window),
            (frame::SET_HEADER_LIST, u32::try_from(crate::limits::HEAD_BYTES).unwrap_or(0)),
        ];
        settings.extend_from_slice(more);
        frame::push_settings(&mut self.out, &settings);
        let extra = self.config.connection_window.saturating_sub(DEFAULT_WINDOW);
        if extra > 0 {
            frame::push_window_update(&mut self.out, 0, extra);
        }
    }

    /// Opens a stream with a request (client).
    ///
    /// # Errors
    ///
    /// [`Error::Full`] when the peer allows no more streams now, [`Error::Closed`] after GOAWAY or a failure.
    pub fn open(&mut self, fields: &[(&str, &str)], end: bool) -> Result<u32, Error> {
        if self.failed.is_some() || self.goaway_received || self.next_stream > MAX_31 {
            return Err(Error::Closed);
        }
        if self.streams.len() >= usize::try_from(self.peer.max_streams).unwrap_or(usize::MAX) {
            return Err(Error::Full);
        }
        let id = self.next_stream;
        self.next_stream = self.next_stream.saturating_add(2);
        let mut stream = Stream::new(id, self.config.stream_window, self.peer.initial_window);
        stream.send_open = !end;
        self.streams.insert(stream);
        self.push_head(id, fields, end);
        Ok(id)
    }

    /// Sends a response head (server). A stream that is gone is not an error: nothing is sent.
    pub fn send_headers(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let Some(s) = self.streams.get_mut(stream).filter(|s| s.send_open) else { return };
        s.answered = true;
        s.send_open = !end;
        self.push_head(stream, fields, end);
        self.streams.sweep(stream);
    }

    fn push_head(&mut self, stream: u32, fields: &[(&str, &str)], end: bool) {
        let block = self.encoder.encode(fields);
        let mut chunks = block.chunks(H2_FRAME_BYTES).peekable();
        let mut kind = frame::HEADERS;
        let mut flags = if end { frame::END_STREAM } else { 0 };
        while let Some(chunk) = chunks.next() {
            if chunks.peek().is_none() {
                flags |= frame::END_HEADERS;
            }
            frame::push(&mut self.out, kind, flags, stream, chunk);
            (kind, flags) = (frame::CONTINUATION, 0);
        }
    }

    /// Writes what is queued and then one DATA frame of as much of `data` as fits the windows and `out`, straight from
    /// the one into the other. `end` counts when all of `data` was taken; `data` may be empty then.
    pub fn write_data(&mut self, stream: u32, data: &[u8], end: bool, out: &mut [u8]) -> Sent {
        let queued = self.poll_transmit(out);
        let Some(room) = out.get_mut(queued..) else { return Sent { taken: 0, written: queued } };
        if self.wants_write() || room.len() < frame::HEAD {
            return Sent { taken: 0, written: queued };
        }
        let most = room.len().saturating_sub(frame::HEAD);
        let Some((head, taken)) = self.next_data(stream, data, end, most) else {
            return Sent { taken: 0, written: queued };
        };
        let Some((to_head, to_data)) = room.split_at_mut_checked(frame::HEAD) else {
            return Sent { taken: 0, written: queued };
        };
        to_head.copy_from_slice(&head.encode());
        if let (Some(to), Some(from)) = (to_data.get_mut(..taken), data.get(..taken)) {
            to.copy_from_slice(from);
        }
        Sent { taken, written: queued.saturating_add(frame::HEAD).saturating_add(taken) }
    }

    /// Queues as much of `data` as the windows and the small output buffer allow. `end` counts when all was taken.
    pub fn send_data(&mut self, stream: u32, data: &[u8], end: bool) -> usize {
        let most = H2_QUEUE_BYTES.saturating_sub(self.queued());
        let Some((head, taken)) = self.next_data(stream, data, end, most) else { return 0 };
        self.out.extend_from_slice(&head.encode());
        self.out.extend_from_slice(data.get(..taken).unwrap_or_default());
        taken
    }

    /// Takes the windows for the next DATA frame: its head and how much of `data` it carries.
    fn next_data(&mut self, id: u32, data: &[u8], end: bool, most: usize) -> Option<(Head, usize)> {
        let allowed = self.send_window(id);
        let stream = self.streams.get_mut(id).filter(|s| s.send_open)?;
        let taken = data.len().min(most).min(allowed).min(H2_FRAME_BYTES);
        let end = end && taken == data.len();
        if taken == 0 && !end {
            return None;
        }
        let length = u32::try_from(taken).ok()?;
        stream.send_window = stream.send_window.saturating_sub(i64::from(length));
        stream.send_open = !end;
        self.send_window = self.send_window.saturating_sub(i64::from(length));
        self.streams.sweep(id);
        let flags = if end { frame::END_STREAM } else { 0 };
        Some((Head { length, kind: frame::DATA, flags, stream: id }, taken))
    }

    /// Bytes that may be sent on the stream now.
    #[must_use]
    pub fn send_window(&self, stream: u32) -> usize {
        let Some(s) = self.streams.get(stream).filter(|s| s.send_open) else { return 0 };
        usize::try_from(s.send_window.min(self.send_window)).unwrap_or(0)
    }

    /// `n` received bytes of this stream are done with: the peer may send as many more. Also for streams that have ended.
    pub fn credit(&mut self, stream: u32, n: usize) {
        let n = u32::try_from(n).unwrap_or(u32::MAX);
        if self.failed.is_some() {
            return;
        }
        if let Some(more) = self.recv.credit(n) {
            frame::push_window_update(&mut self.out, 0, more);
        }
        // A peer that ended its side needs no window.
        if let Some(s) = self.streams.get_mut(stream).filter(|s| s.recv_open)
            && let Some(more) = s.recv.credit(n)
        {
            frame::push_window_update(&mut self.out, stream, more);
        }
    }

    /// Ends a stream with RST_STREAM. Frames of it that are under way are read over.
    pub fn reset(&mut self, stream: u32, code: Code) {
        if self.streams.close(stream, Closed::ResetByUs) {
            frame::push_reset(&mut self.out, stream, code);
        }
    }

    /// Says that no new streams are taken; open ones go on.
    pub fn goaway(&mut self, code: Code) {
        if self.failed.is_none() && self.goaway_sent.is_none() {
            self.goaway_sent = Some(self.last_peer_stream);
            frame::push_goaway(&mut self.out, self.last_peer_stream, code);
        }
    }

    /// Sends a PING; [`Event::Pong`] answers it.
    pub fn ping(&mut self) {
        if self.failed.is_none() {
            frame::push(&mut self.out, frame::PING, 0, 0, PING_DATA);
        }
    }

    /// Moves queued output into `out` and returns how many bytes.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> usize {
        let queued = self.out.get(self.out_at..).unwrap_or_default();
        let n = queued.len().min(out.len());
        if let (Some(to), Some(from)) = (out.get_mut(..n), queued.get(..n)) {
            to.copy_from_slice(from);
        }
        self.out_at = self.out_at.saturating_add(n);
        if self.out_at >= self.out.len() {
            self.out_at = 0;
            self.out.clear();
            if self.out.capacity() > KEPT_BYTES {
                self.out = Vec::new();
            }
        }
        n
    }

    /// Whether [`Connection::poll_transmit`] has something.
    #[must_use]
    pub fn wants_write(&self) -> bool {
        self.queued() > 0
    }

    pub(super) const fn queued(&self) -> usize {
        self.out.len().saturating_sub(self.out_at)
    }

    /// Streams that are open or half closed.
    #[must_use]
    pub fn open_streams(&self) -> usize {
        self.streams.len()
    }

    /// Whether the stream is open or half closed.
    #[must_use]
    pub fn is_open(&self, stream: u32) -> bool {
        self.streams.get(stream).is_some()
    }

    /// The link is gone: nothing is sent or read any more.
    pub fn abandon(&mut self) {
        self.failed.get_or_insert(Code::NoError);
        self.streams = Streams::default();
        self.out = Vec::new();
        self.out_at = 0;
    }

    /// Whether our side of the stream is open.
    #[must_use]
    pub fn sends(&self, stream: u32) -> bool {
        self.streams.get(stream).is_some_and(|s| s.send_open)
    }

    /// Whether the connection failed.
    #[must_use]
    pub const fn is_failed(&self) -> bool {
        self.failed.is_some()
    }

    /// The peer broke the protocol: says so, and reads nothing more.
    pub(super) fn fail<'a>(&mut self, code: Code) -> Event<'a> {
        self.failed = Some(code);
        self.collected = Collected::default();
        // It may only fall (RFC 9113, 6.8).
        let last = self.goaway_sent.unwrap_or(self.last_peer_stream);
        frame::push_goaway(&mut self.out, last, code);
        Event::Failed(code)
    }

    pub(super) const fn output(&mut self) -> &mut Vec<u8> {
        &mut self.out
    }
}

/// Windows before anyone says otherwise.
const DEFAULT_WINDOW: u32 = 65_535;

/// Output buffers up to this size are kept for the next frames.
const KEPT_BYTES: usize = 1024;

pub(super) const PING_DATA: &[u8; 8] = b"castkeep";
