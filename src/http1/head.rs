//! Heads of requests and responses.

use httparse::{EMPTY_HEADER, Header};

use super::BodyKind;
use crate::limits::{HEAD_BYTES, HEAD_FIELDS};

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
    let mut fields = Fields { fields: [EMPTY_HEADER; HEAD_FIELDS], len: 0 };
    let window = buf.get(..HEAD_BYTES).unwrap_or(buf);
    let mut res = httparse::Response::new(&mut fields.fields);
    let parsed = res.parse(window).map_err(head_error)?;
    let (status, reason, version, len) = (res.code, res.reason, res.version, res.headers.len());
    let httparse::Status::Complete(used) = parsed else { return partial(buf.len()) };
    fields.len = len;
    let Some(status) = status.filter(|s| *s >= 100) else { return Err(HeadError::Malformed) };
    let promised = if status < 200 { None } else { fields.promised()? };
    let head = ResponseHead {
        status,
        reason: reason.unwrap_or(""),
        http10: version == Some(0),
        fields,
        promised,
    };
    Ok(Some((head, used)))
}

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
