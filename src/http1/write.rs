//! Writing heads.

use crate::error::Error;
use crate::space;

/// The interim answer that lets a client with `Expect: 100-continue` go on.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// Writes a request head into `out` and returns its length.
///
/// # Errors
///
/// [`Error::TooBig`] when it does not fit; `out` then holds rubbish.
pub fn write_request(
    out: &mut [u8],
    method: &str,
    target: &str,
    fields: &[(&str, &str)],
) -> Result<usize, Error> {
    let mut w = Writer { out, len: 0 };
    w.put(method)?;
    w.put(" ")?;
    w.put(target)?;
    w.put(" HTTP/1.1\r\n")?;
    w.fields(fields)?;
    Ok(w.len)
}

/// Writes a response head into `out` and returns its length.
///
/// # Errors
///
/// [`Error::TooBig`] when it does not fit; `out` then holds rubbish.
pub fn write_response(
    out: &mut [u8],
    status: u16,
    fields: &[(&str, &str)],
) -> Result<usize, Error> {
    let mut w = Writer { out, len: 0 };
    let digits = [status / 100, status / 10, status].map(|d| {
        // Each is below 10 after the remainder.
        char::from(b'0'.saturating_add(u8::try_from(d % 10).unwrap_or(0)))
    });
    w.put("HTTP/1.1 ")?;
    for d in digits {
        w.put(d.encode_utf8(&mut [0; 4]))?;
    }
    w.put(" ")?;
    w.put(reason(status))?;
    w.put("\r\n")?;
    w.fields(fields)?;
    Ok(w.len)
}

/// The reason phrase of a status that we send.
#[must_use]
pub const fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        101 => "Switching Protocols",
        200 => "OK",
        201 => "Created",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        411 => "Length Required",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        426 => "Upgrade Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        503 => "Service Unavailable",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        _ => "",
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
}

impl Writer<'_> {
    fn put(&mut self, text: &str) -> Result<(), Error> {
        let end = self.len.checked_add(text.len()).ok_or(Error::TooBig)?;
        let room = self.out.get_mut(self.len..end).ok_or(Error::TooBig)?;
        space::copy(room, text.as_bytes());
        self.len = end;
        Ok(())
    }

    fn fields(&mut self, fields: &[(&str, &str)]) -> Result<(), Error> {
        for (name, value) in fields {
            self.put(name)?;
            self.put(": ")?;
            self.put(value)?;
            self.put("\r\n")?;
        }
        self.put("\r\n")
    }
}
