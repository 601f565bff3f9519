//! One GET over a Unix socket, whole before a deadline and within a bound.

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use super::LocalApiError;
use crate::cast::text::escape_control;
use crate::http1::{self, BodyDecoder, BodyKind};
use crate::limits;

/// A whole answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The body of a 200.
    pub(super) fn ok(self) -> Result<Vec<u8>, LocalApiError> {
        if self.status == 200 { Ok(self.body) } else { Err(self.refused()) }
    }

    /// The error that another status is.
    pub(super) fn refused(&self) -> LocalApiError {
        let cut = self.body.get(..SHOWN_BYTES).unwrap_or(&self.body).trim_ascii();
        let text = escape_control(&String::from_utf8_lossy(cut)).into_owned();
        LocalApiError::Refused { status: self.status, text }
    }
}

/// Asks and reads to the end of the answer. A body of more than `most` bytes is an error.
pub(super) fn get(
    socket: &Path,
    target: &str,
    most: usize,
    until: Instant,
) -> Result<Answer, LocalApiError> {
    let mut stream = connect(socket, until)?;
    // The API refuses every other Host, and requests that come from a browser.
    let fields = [("Host", HOST), ("Accept-Encoding", "identity"), ("Connection", "close")];
    let mut head = [0; REQUEST_BYTES];
    let len = http1::write_request(&mut head, "GET", target, &fields)
        .map_err(|_| LocalApiError::Unusable("the request is too long"))?;
    let mut rest = head.get(..len).unwrap_or_default();
    while !rest.is_empty() {
        stream.set_write_timeout(Some(left(until)?)).map_err(LocalApiError::Unreachable)?;
        match stream.write(rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            // It can have answered and closed before it read all: the answer counts.
            Err(e) if e.kind() == ErrorKind::BrokenPipe => break,
            Err(e) => pass(e)?,
        }
    }
    let mut input = Vec::new();
    let (status, kind, used) = loop {
        match http1::parse_response(&input) {
            // Interim answers say nothing yet.
            Ok(Some((head, used))) if head.status < 200 => {
                input.drain(..used);
            }
            Ok(Some((head, used))) => break (head.status, head.body(false), used),
            Ok(None) => {
                if read(&mut stream, &mut input, until)? == 0 {
                    return Err(LocalApiError::Broken("it ends within its head"));
                }
            }
            Err(_) => return Err(LocalApiError::Broken("no HTTP/1.1 head")),
        }
    };
    input.drain(..used);
    let body = body(&mut stream, input, kind, most, until)?;
    Ok(Answer { status, body })
}

fn body(
    stream: &mut UnixStream,
    mut input: Vec<u8>,
    kind: BodyKind,
    most: usize,
    until: Instant,
) -> Result<Vec<u8>, LocalApiError> {
    let too_long = LocalApiError::Broken("longer than it can be");
    if matches!(kind, BodyKind::Length(n) if n > most as u64) {
        return Err(too_long);
    }
    let mut decoder = BodyDecoder::new(kind);
    let mut body = Vec::new();
    loop {
        let mut rest = input.as_slice();
        while !rest.is_empty() && !decoder.is_done() {
            let piece =
                decoder.decode(rest).map_err(|_| LocalApiError::Broken("its chunks are wrong"))?;
            if piece.data.len() > most.saturating_sub(body.len()) {
                return Err(too_long);
            }
            body.extend_from_slice(piece.data);
            rest = rest.get(piece.consumed..).unwrap_or_default();
        }
        if decoder.is_done() {
            return Ok(body);
        }
        input.clear();
        if read(stream, &mut input, until)? == 0 {
            let whole = decoder.ends_at_close();
            return if whole { Ok(body) } else { Err(LocalApiError::Broken("it ends early")) };
        }
    }
}

/// Reads once, behind what `input` holds.
fn read(
    stream: &mut UnixStream,
    input: &mut Vec<u8>,
    until: Instant,
) -> Result<usize, LocalApiError> {
    let mut block = [0; 4096];
    loop {
        stream.set_read_timeout(Some(left(until)?)).map_err(LocalApiError::Unreachable)?;
        match stream.read(&mut block) {
            Ok(n) => {
                input.extend_from_slice(block.get(..n).unwrap_or_default());
                return Ok(n);
            }
            Err(e) if e.kind() == ErrorKind::ConnectionReset => return Ok(0),
            Err(e) => pass(e)?,
        }
    }
}

/// Connects without waiting for ever: connect(2) on a Unix socket blocks while the queue of the listener is full.
fn connect(socket: &Path, until: Instant) -> Result<UnixStream, LocalApiError> {
    let unreachable = |e: Errno| LocalApiError::Unreachable(e.into());
    let address = SocketAddrUnix::new(socket).map_err(unreachable)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .map_err(unreachable)?;
    loop {
        match rustix::net::connect(&fd, &address) {
            Ok(()) => break,
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => std::thread::sleep(QUEUE_PAUSE.min(left(until)?)),
            Err(e) => return Err(unreachable(e)),
        }
    }
    let stream = UnixStream::from(fd);
    stream.set_nonblocking(false).map_err(LocalApiError::Unreachable)?;
    Ok(stream)
}

/// What is left of the time; never zero, which would mean no limit at all.
fn left(until: Instant) -> Result<Duration, LocalApiError> {
    let left = until.saturating_duration_since(Instant::now());
    if left < Duration::from_millis(1) { Err(LocalApiError::TimedOut) } else { Ok(left) }
}

/// An interruption is passed over.
fn pass(error: io::Error) -> Result<(), LocalApiError> {
    match error.kind() {
        ErrorKind::Interrupted => Ok(()),
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Err(LocalApiError::TimedOut),
        _ => Err(LocalApiError::Unreachable(error)),
    }
}

const HOST: &str = "local-tailscaled.sock";
/// Room for the request: a target with the longest domain, and our few fields.
const REQUEST_BYTES: usize = limits::HEAD_BYTES / 16;
/// How much of an error's text is shown.
const SHOWN_BYTES: usize = 300;
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
