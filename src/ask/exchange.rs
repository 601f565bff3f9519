//! One request over HTTP/1.1 whose answer comes in lines.

use alloc::vec::Vec;

use crate::error::{Error, Link, PeerFault};
use crate::http1::{self, BodyDecoder};
use crate::limits::ASK_LINE_BYTES;
use crate::space;
use crate::upload::wire::Decimal;

/// See the module.
///
/// ```text
/// Head ─► Body ─► Done
/// ```
#[derive(Debug)]
pub struct Exchange {
    request: Vec<u8>,
    /// 0 <= sent <= request.len()
    sent: usize,
    /// The head of the answer as far as it came, then the line.
    held: Vec<u8>,
    state: State,
}

#[derive(Debug)]
enum State {
    Head,
    Body { status: u16, body: BodyDecoder },
    Done { status: u16 },
}

impl Exchange {
    /// A request of `body` to `path`.
    ///
    /// # Errors
    /// `TooBig`, `NoMemory`.
    pub fn new(
        authority: &str,
        path: &str,
        token: Option<&str>,
        body: &[u8],
    ) -> Result<Self, Error> {
        let mut request = space::zeros(
            HEAD_ROOM
                .saturating_add(authority.len())
                .saturating_add(token.map_or(0, str::len))
                .saturating_add(body.len()),
        )?;
        let length = Decimal::new(body.len() as u64);
        let bearer = match token {
            Some(token) => {
                let mut text = Vec::new();
                space::extend(&mut text, b"Bearer ")?;
                space::extend(&mut text, token.as_bytes())?;
                Some(space::lossy(&text)?)
            }
            None => None,
        };
        let fields = [
            ("Host", authority),
            ("Content-Type", "application/json"),
            ("Content-Length", length.as_str()),
            ("Authorization", bearer.as_deref().unwrap_or_default()),
        ];
        let fields = fields.get(..if bearer.is_some() { 4 } else { 3 }).unwrap_or(&fields);
        let used = http1::write_request(&mut request, "POST", path, fields)?;
        request.truncate(used);
        space::extend(&mut request, body)?;
        Ok(Self { request, sent: 0, held: Vec::new(), state: State::Head })
    }

    /// Fills `out` as far as there is something to send.
    pub fn poll_transmit(&mut self, out: &mut [u8]) -> usize {
        let rest = self.request.get(self.sent..).unwrap_or_default();
        let n = rest.len().min(out.len());
        space::copy(out, rest);
        self.sent = self.sent.saturating_add(n);
        if self.sent >= self.request.len() && !self.request.is_empty() {
            self.request = Vec::new();
            self.sent = 0;
        }
        n
    }

    /// The status, once the head of the answer is there.
    #[must_use]
    pub const fn status(&self) -> Option<u16> {
        match &self.state {
            State::Head => None,
            State::Body { status, .. } | State::Done { status } => Some(*status),
        }
    }

    /// Whether the answer ended in order.
    #[must_use]
    pub const fn is_done(&self) -> bool {
        matches!(self.state, State::Done { .. })
    }

    /// Bytes came. `line` gets each line of a body with status 200; other bodies are read over.
    ///
    /// # Errors
    /// `Peer` for what is not HTTP or has lines past their limit, what `line` answered, `NoMemory`.
    pub fn handle_input(
        &mut self,
        input: &[u8],
        mut line: impl FnMut(&[u8]) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut rest = input;
        if matches!(self.state, State::Head) {
            let before = self.held.len();
            space::extend(&mut self.held, rest)?;
            let broken = |_| Error::Peer(PeerFault::Http);
            let Some((head, used)) = http1::parse_response(&self.held).map_err(broken)? else {
                return Ok(());
            };
            let (status, kind) = (head.status, head.body(false));
            if status < 200 {
                return Err(Error::Peer(PeerFault::Http));
            }
            rest = input.get(used.saturating_sub(before)..).unwrap_or_default();
            self.held.clear();
            self.state = State::Body { status, body: BodyDecoder::new(kind) };
        }
        while let State::Body { status, body } = &mut self.state {
            let piece = body.decode(rest)?;
            rest = rest.get(piece.consumed..).unwrap_or_default();
            if *status == 200 {
                lines(&mut self.held, piece.data, &mut line)?;
            }
            if body.is_done() {
                let status = *status;
                self.state = State::Done { status };
            } else if piece.consumed == 0 {
                break;
            }
        }
        Ok(())
    }

    /// The peer closed its side.
    ///
    /// # Errors
    /// When the answer was not whole.
    pub fn handle_eof(&mut self) -> Result<(), Error> {
        match &self.state {
            State::Body { status, body } if body.ends_at_close() => {
                self.state = State::Done { status: *status };
                Ok(())
            }
            State::Done { .. } => Ok(()),
            State::Head | State::Body { .. } => Err(Error::Link(Link::Closed)),
        }
    }
}

/// Gives whole lines out and keeps the rest.
fn lines(
    held: &mut Vec<u8>,
    data: &[u8],
    line: &mut impl FnMut(&[u8]) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut rest = data;
    while let Some(end) = memchr::memchr(b'\n', rest) {
        let (front, behind) = rest.split_at_checked(end).ok_or(Error::Bug)?;
        rest = behind.get(1..).unwrap_or_default();
        if held.len().saturating_add(front.len()) > ASK_LINE_BYTES {
            return Err(Error::Peer(PeerFault::BadVerdict));
        }
        if held.is_empty() {
            if !front.is_empty() {
                line(front)?;
            }
        } else {
            space::extend(held, front)?;
            line(held)?;
            held.clear();
        }
    }
    if held.len().saturating_add(rest.len()) > ASK_LINE_BYTES {
        return Err(Error::Peer(PeerFault::BadVerdict));
    }
    space::extend(held, rest)
}

/// More than the head without the host's name.
const HEAD_ROOM: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pieces: &[&[u8]]) -> (Vec<Vec<u8>>, Result<(), Error>, Exchange) {
        let mut exchange =
            Exchange::new("localhost", super::super::DECIDE_PATH, None, b"{}").unwrap();
        let mut all = Vec::new();
        let mut result = Ok(());
        for piece in pieces {
            result = exchange.handle_input(piece, |line| {
                all.push(line.to_vec());
                Ok(())
            });
            if result.is_err() {
                break;
            }
        }
        (all, result, exchange)
    }

    const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\none\n\r\n7\r\ntwo\nthr\r\n3\r\nee\n\r\n0\r\n\r\n";

    #[test]
    fn the_request_is_whole_however_it_is_taken() {
        let mut whole = Exchange::new("h:1", "/p", Some("secret"), b"{\"a\":1}").unwrap();
        let mut out = [0; 1024];
        let n = whole.poll_transmit(&mut out);
        assert_eq!(
            &out[..n],
            b"POST /p HTTP/1.1\r\nHost: h:1\r\nContent-Type: application/json\r\nContent-Length: 7\r\nAuthorization: Bearer secret\r\n\r\n{\"a\":1}"
        );
        assert_eq!(whole.poll_transmit(&mut out), 0);
        let mut parts = Exchange::new("h:1", "/p", Some("secret"), b"{\"a\":1}").unwrap();
        let mut seen = Vec::new();
        loop {
            let mut few = [0; 3];
            match parts.poll_transmit(&mut few) {
                0 => break,
                n => seen.extend_from_slice(&few[..n]),
            }
        }
        assert_eq!(seen, &out[..n]);
    }

    #[test]
    fn lines_come_out_whatever_the_pieces() {
        let (lines, result, exchange) = run(&[ANSWER]);
        assert_eq!((lines.len(), result, exchange.is_done()), (3, Ok(()), true));
        assert_eq!(lines[2], b"three");
        let bytes: Vec<&[u8]> = ANSWER.chunks(1).collect();
        assert_eq!(run(&bytes).0, lines);
    }

    #[test]
    fn an_answer_that_ends_early_is_told_from_one_that_ends() {
        for end in 1..ANSWER.len() {
            let (_, result, mut exchange) = run(&[&ANSWER[..end]]);
            assert_eq!(result, Ok(()), "{end}");
            assert!(exchange.handle_eof().is_err(), "{end}");
        }
        assert!(run(&[ANSWER]).2.handle_eof().is_ok());
        let (lines, _, mut exchange) = run(&[b"HTTP/1.0 200 OK\r\n\r\nline\n"]);
        assert_eq!(lines.len(), 1);
        assert!(exchange.handle_eof().is_ok() && exchange.is_done());
    }

    #[test]
    fn a_refusal_is_a_status_without_lines() {
        let (lines, result, exchange) =
            run(&[b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 3\r\n\r\nno\n"]);
        assert_eq!((lines.len(), result, exchange.status()), (0, Ok(()), Some(503)));
        assert!(exchange.is_done());
    }

    #[test]
    fn a_line_past_its_limit_ends_it() {
        let mut answer = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
        answer.resize(answer.len() + ASK_LINE_BYTES + 1, b'x');
        assert!(run(&[&answer]).1.is_err());
        assert!(run(&[b"nonsense\r\n\r\n"]).1.is_err());
    }
}
