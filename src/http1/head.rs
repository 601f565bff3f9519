//! Heads of requests and responses.

use httparse::{EMPTY_HEADER, Header};

use super::BodyKind;
use crate::limits::{HEAD_BYTES, HEAD_FIELDS};
use crate::space;

/// Why a head is refused, and with that what a server answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeadError {
    /// It breaks RFC 9112: 400.
    Malformed,
    /// More than [`HEAD_BYTES`] or [`HEAD_FIELDS`]: 431.
    TooLarge,
    /// Not HTTP/1.0 or HTTP/1.1: 505.
    Version,
}

/// The fields of a head, in the order in which they came.
pub struct Fields<'a> {
    fields: [Header<'a>; HEAD_FIELDS],
    len: usize,
}

impl<'a> Fields<'a> {
    /// All fields, names as they were written.
    pub fn iter(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> {
        self.fields.iter().take(self.len).map(|h| (h.name, h.value))
    }

    /// The value of the only field of this name. None when there is none, or none that is ASCII text.
    ///
    /// With several fields of the name the first counts; [`Fields::count`] tells.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&'a str> {
        let (_, value) = self.iter().find(|(n, _)| n.eq_ignore_ascii_case(name))?;
        let text = core::str::from_utf8(value).ok()?;
        text.is_ascii().then(|| text.trim_matches([' ', '\t']))
    }

    /// How many fields have this name.
    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).count()
    }

    /// Whether the comma-separated list in the fields of this name has `word`, in any case.
    #[must_use]
    pub fn list_has(&self, name: &str, word: &str) -> bool {
        self.iter().filter(|(n, _)| n.eq_ignore_ascii_case(name)).any(|(_, value)| {
            value
                .split(|b| *b == b',')
                .any(|w| w.trim_ascii().eq_ignore_ascii_case(word.as_bytes()))
        })
    }

    /// The body that `Content-Length` and `Transfer-Encoding` promise; None when neither is there.
    ///
    /// Both together, two lengths that differ, and codings other than `chunked` are refused: they are what request
    /// smuggling is made of (RFC 9112, 6.3).
    fn promised(&self) -> Result<Option<BodyKind>, HeadError> {
        let mut length: Option<u64> = None;
        let mut chunked = false;
        for (name, value) in self.iter() {
            if name.eq_ignore_ascii_case("transfer-encoding") {
                if chunked || !value.trim_ascii().eq_ignore_ascii_case(b"chunked") {
                    return Err(HeadError::Malformed);
                }
                chunked = true;
            } else if name.eq_ignore_ascii_case("content-length") {
                let n = parse_decimal(value.trim_ascii()).ok_or(HeadError::Malformed)?;
                if length.is_some_and(|l| l != n) {
                    return Err(HeadError::Malformed);
                }
                length = Some(n);
            }
        }
        match (chunked, length) {
            (true, Some(_)) => Err(HeadError::Malformed),
            (true, None) => Ok(Some(BodyKind::Chunked)),
            (false, Some(0)) => Ok(Some(BodyKind::None)),
            (false, Some(n)) => Ok(Some(BodyKind::Length(n))),
            (false, None) => Ok(None),
        }
    }
}

impl core::fmt::Debug for Fields<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_map().entries(self.iter()).finish()
    }
}

/// A request head.
#[derive(Debug)]
pub struct RequestHead<'a> {
    /// As it was written: `POST`.
    pub method: &'a str,
    /// As it was written: `/record`.
    pub target: &'a str,
    /// Whether it is HTTP/1.0, which has no `100 Continue` and closes.
    pub http10: bool,
    /// Its fields.
    pub fields: Fields<'a>,
    /// What follows the head.
    pub body: BodyKind,
}

impl RequestHead<'_> {
    /// The path: the target without a query, and without scheme and authority when it came in absolute form.
    #[must_use]
    pub fn path(&self) -> &str {
        path_of(self.target)
    }

    /// Whether the client waits for `100 Continue`.
    #[must_use]
    pub fn expects_continue(&self) -> bool {
        !self.http10 && self.fields.list_has("expect", "100-continue")
    }

    /// Whether the connection can take another request behind this one.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        keep_alive(self.http10, &self.fields)
    }

    /// Whether the client wants to go on in `protocol` (RFC 9110, 7.8).
    #[must_use]
    pub fn upgrades_to(&self, protocol: &str) -> bool {
        !self.http10
            && self.fields.list_has("connection", "upgrade")
            && self.fields.list_has("upgrade", protocol)
    }
}

/// A response head.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// 100 to 999.
    pub status: u16,
    /// May be empty.
    pub reason: &'a str,
    /// Whether it is HTTP/1.0.
    pub http10: bool,
    /// Its fields.
    pub fields: Fields<'a>,
    promised: Option<BodyKind>,
}

impl ResponseHead<'_> {
    /// What follows the head, which depends on the request (RFC 9112, 6.3).
    #[must_use]
    pub fn body(&self, request_was_head: bool) -> BodyKind {
        if request_was_head || self.status < 200 || self.status == 204 || self.status == 304 {
            return BodyKind::None;
        }
        self.promised.unwrap_or(BodyKind::UntilClose)
    }

    /// Whether the connection can take another request behind this one.
    #[must_use]
    pub fn keep_alive(&self) -> bool {
        keep_alive(self.http10, &self.fields)
    }
}

/// Parses a request head at the start of `buf`: the head and its length, or None when it is not complete.
///
/// # Errors
///
/// See [`HeadError`]. A head that is not complete within [`HEAD_BYTES`] is too large.
pub fn parse_request(buf: &[u8]) -> Result<Option<(RequestHead<'_>, usize)>, HeadError> {
    let mut fields = Fields { fields: [EMPTY_HEADER; HEAD_FIELDS], len: 0 };
    let window = buf.get(..HEAD_BYTES).unwrap_or(buf);
    let mut req = httparse::Request::new(&mut fields.fields);
    let status = req.parse(window).map_err(head_error)?;
    let (method, target, version, len) = (req.method, req.path, req.version, req.headers.len());
    let httparse::Status::Complete(used) = status else { return partial(buf.len()) };
    fields.len = len;
    let (Some(method), Some(target)) = (method, target) else { return Err(HeadError::Malformed) };
    let promised = fields.promised()?;
    let http10 = version == Some(0);
    if http10 && promised == Some(BodyKind::Chunked) {
        return Err(HeadError::Malformed);
    }
    if !http10 && fields.count("host") > 1 {
        return Err(HeadError::Malformed);
    }
    let body = promised.unwrap_or(BodyKind::None);
    Ok(Some((RequestHead { method, target, http10, fields, body }, used)))
}

/// Parses a response head at the start of `buf`: the head and its length, or None when it is not complete.
///
/// # Errors
///
/// See [`HeadError`].
pub fn parse_response(buf: &[u8]) -> Result<Option<(ResponseHead<'_>, usize)>, HeadError> {
    // By hand: what httparse does here cannot be shown to be free of panics, and the client must be.
    let window = buf.get(..HEAD_BYTES).unwrap_or(buf);
    if !VERSION.starts_with(window) && !window.starts_with(VERSION) {
        return Err(HeadError::Malformed);
    }
    let mut lines = Lines { window, at: 0 };
    let Some(line) = lines.next() else { return partial(buf.len()) };
    let (http10, status, reason) = status_line(line)?;
    let mut fields = Fields { fields: [EMPTY_HEADER; HEAD_FIELDS], len: 0 };
    loop {
        let Some(line) = lines.next() else { return partial(buf.len()) };
        if line.is_empty() {
            break;
        }
        let (name, value) = field_line(line).ok_or(HeadError::Malformed)?;
        let slot = fields.fields.get_mut(fields.len).ok_or(HeadError::TooLarge)?;
        *slot = Header { name, value };
        fields.len = fields.len.saturating_add(1);
    }
    let promised = if status < 200 { None } else { fields.promised()? };
    Ok(Some((ResponseHead { status, reason, http10, fields, promised }, lines.at)))
}

/// Lines that end in LF, without that and a CR in front of it (RFC 9112, 2.2).
struct Lines<'a> {
    window: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Lines<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.window.get(self.at..)?;
        let end = rest.iter().position(|b| *b == b'\n')?;
        self.at = self.at.saturating_add(end).saturating_add(1);
        let line = rest.get(..end)?;
        match line.split_last() {
            Some((b'\r', line)) => Some(line),
            _ => Some(line),
        }
    }
}

/// Whether it is HTTP/1.0, the status, the reason.
fn status_line(line: &[u8]) -> Result<(bool, u16, &str), HeadError> {
    let rest = space::behind(line, VERSION).ok_or(HeadError::Malformed)?;
    let (http10, rest) = match rest.split_first() {
        Some((b'0', rest)) => (true, rest),
        Some((b'1', rest)) => (false, rest),
        _ => return Err(HeadError::Version),
    };
    let [b' ', a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', rest @ ..] = rest else {
        return Err(HeadError::Malformed);
    };
    let status = [a, b, c].iter().fold(0u16, |n, digit| {
        n.saturating_mul(10).saturating_add(u16::from(digit.wrapping_sub(b'0')))
    });
    let reason = match rest {
        [] => rest,
        [b' ', reason @ ..] if reason.iter().all(|b| is_value(*b)) => reason,
        _ => return Err(HeadError::Malformed),
    };
    let text = core::str::from_utf8(reason).ok().filter(|r| r.is_ascii());
    Ok((http10, status, text.unwrap_or_default()))
}

fn field_line(line: &[u8]) -> Option<(&str, &[u8])> {
    let colon = line.iter().position(|b| *b == b':')?;
    let (name, value) = (line.get(..colon)?, line.get(colon..)?.get(1..)?);
    if name.is_empty() || !name.iter().all(|b| is_token(*b)) || !value.iter().all(|b| is_value(*b))
    {
        return None;
    }
    Some((core::str::from_utf8(name).ok()?, trim(value)))
}

/// Without optional white space at both ends.
fn trim(mut value: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = value {
        value = rest;
    }
    value
}

const fn is_value(b: u8) -> bool {
    matches!(b, b'\t' | b' '..=b'~' | 0x80..)
}

/// RFC 9110, 5.6.2.
const fn is_token(b: u8) -> bool {
    b.is_ascii_alphanumeric()
        || matches!(b, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'^'..=b'`' | b'|' | b'~')
}

/// What every head that we take begins with.
const VERSION: &[u8] = b"HTTP/1.";

/// Decimal digits and nothing else; None also when it does not fit.
#[must_use]
pub(crate) fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0u64, |n, b| {
        let digit = b.is_ascii_digit().then(|| u64::from(b.wrapping_sub(b'0')))?;
        n.checked_mul(10)?.checked_add(digit)
    })
}

/// The path of a request target in origin or absolute form.
pub(crate) fn path_of(target: &str) -> &str {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    let target = target.get(..end).unwrap_or(target);
    let Some((scheme, rest)) = target.split_once("://") else { return target };
    if scheme.is_empty() || scheme.contains('/') {
        return target;
    }
    rest.find('/').and_then(|at| rest.get(at..)).unwrap_or("/")
}

fn keep_alive(http10: bool, fields: &Fields<'_>) -> bool {
    if fields.list_has("connection", "close") {
        return false;
    }
    !http10 || fields.list_has("connection", "keep-alive")
}

fn partial<T>(have: usize) -> Result<Option<T>, HeadError> {
    if have >= HEAD_BYTES { Err(HeadError::TooLarge) } else { Ok(None) }
}

fn head_error(error: httparse::Error) -> HeadError {
    match error {
        httparse::Error::TooManyHeaders => HeadError::TooLarge,
        httparse::Error::Version => HeadError::Version,
        _ => HeadError::Malformed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What httparse says: used bytes, status and the fields; none for "more".
    type Said<'a> = Result<Option<(usize, u16, Vec<(&'a str, &'a [u8])>)>, ()>;

    fn theirs(buf: &[u8]) -> Said<'_> {
        let mut fields = [EMPTY_HEADER; HEAD_FIELDS];
        let mut res = httparse::Response::new(&mut fields);
        match res.parse(buf).map_err(drop)? {
            httparse::Status::Partial => Ok(None),
            httparse::Status::Complete(used) => {
                let list = res.headers.iter().map(|h| (h.name, h.value)).collect();
                Ok(Some((used, res.code.ok_or(())?, list)))
            }
        }
    }

    fn ours(buf: &[u8]) -> Said<'_> {
        let Some((head, used)) = parse_response(buf).map_err(drop)? else { return Ok(None) };
        let list = head.fields.fields.iter().take(head.fields.len).map(|h| (h.name, h.value));
        Ok(Some((used, head.status, list.collect())))
    }

    #[test]
    fn response_heads_are_read_as_httparse_reads_them() {
        let heads: [&[u8]; 16] = [
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: castkeep/1\r\nConnection: Upgrade\r\n\r\n{}",
            b"HTTP/1.1 200 OK\nA: b\n\n",
            b"HTTP/1.0 503\r\n\r\n",
            b"HTTP/1.1 204 \r\nX:\r\nY: \t z \t\r\n\r\nrest",
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.2 200 OK\r\n\r\n",
            b"HTTP/1.1 2x0 OK\r\n\r\n",
            b"HTTP/1.1 2000 OK\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nspace : x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: b\r\n folded\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \x01\r\n\r\n",
            b"HTTP/1.1 200 \xc3\xa4\r\nA: \xc3\xa4\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n: empty\r\n\r\n",
            b"<html>",
        ];
        for head in heads {
            assert_eq!(ours(head), theirs(head), "{}", head.escape_ascii());
            for end in 0..head.len() {
                let (a, b) = (ours(&head[..end]), theirs(&head[..end]));
                // What is wrong in a line that is not whole yet is found with its end.
                assert!(a == b || (a == Ok(None) && b.is_err()), "{}", head[..end].escape_ascii());
            }
        }
    }

    #[test]
    fn a_response_head_has_its_limits() {
        let mut many = b"HTTP/1.1 200 OK\r\n".to_vec();
        many.extend(b"A: b\r\n".repeat(HEAD_FIELDS + 1));
        assert_eq!(parse_response(&many).err(), Some(HeadError::TooLarge));
        let mut long = b"HTTP/1.1 200 OK\r\nA: ".to_vec();
        long.resize(HEAD_BYTES, b'x');
        assert_eq!(parse_response(&long).err(), Some(HeadError::TooLarge));
    }
}
