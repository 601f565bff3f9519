//! The little JSON of ack objects: what Go's decoder takes, into and out of [`AckObject`].
//!
//! A parser of its own, because lone surrogates, invalid UTF-8 and keys in any case are legal there and not in
//! `serde_json`, and because it needs no memory but the error text.

use alloc::string::String;
use alloc::vec::Vec;

use super::wire::{AckObject, Decimal};
use crate::space;

/// Reads one whole object or `null`. None: not JSON, or a known key with a value of the wrong type.
pub(super) fn parse(text: &[u8]) -> Option<AckObject> {
    let mut object = AckObject::default();
    let mut r = Reader { rest: text };
    r.space();
    if r.word(b"null") {
        return r.at_end().then_some(object);
    }
    r.byte(b'{')?;
    r.space();
    if r.byte(b'}').is_some() {
        return r.at_end().then_some(object);
    }
    loop {
        r.space();
        let key = r.string()?;
        r.space();
        r.byte(b':')?;
        r.space();
        if r.word(b"null") {
            // Go leaves the field as it is.
        } else if is(&key, "ack") {
            object.ack = Some(r.integer()?);
        } else if is(&key, "commit") {
            object.commit = Some(r.unsigned()?);
        } else if is(&key, "sealed") {
            object.sealed = Some(r.unsigned()?);
        } else if is(&key, "error") {
            // Go leaves an empty text out, so it means none.
            object.error = Some(r.string()?).filter(|t| !t.is_empty());
        } else if is(&key, "drain") {
            object.drain = if r.word(b"true") {
                true
            } else if r.word(b"false") {
                false
            } else {
                return None;
            };
        } else {
            r.skip_value()?;
        }
        r.space();
        if r.byte(b',').is_some() {
            continue;
        }
        r.byte(b'}')?;
        return r.at_end().then_some(object);
    }
}

fn is(key: &str, name: &str) -> bool {
    key.eq_ignore_ascii_case(name)
}

/// Reads JSON where it lies. Every method takes what it is named for, or answers none and is of no further use.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[cfg(feature = "ask")]
    pub(crate) const fn new(text: &'a [u8]) -> Self {
        Self { rest: text }
    }

    /// Whether nothing but space is left.
    #[cfg(feature = "ask")]
    pub(crate) fn is_done(&mut self) -> bool {
        self.space();
        self.at_end()
    }

    /// An object: `member` reads the value of each key that is not null.
    #[cfg(feature = "ask")]
    pub(crate) fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, &str) -> Option<()>,
    ) -> Option<()> {
        self.space();
        self.byte(b'{')?;
        self.space();
        if self.byte(b'}').is_some() {
            return Some(());
        }
        loop {
            self.space();
            let key = self.string()?;
            self.space();
            self.byte(b':')?;
            self.space();
            if !self.word(b"null") {
                member(self, &key)?;
            }
            self.space();
            if self.byte(b',').is_none() {
                return self.byte(b'}');
            }
        }
    }

    /// An array: `element` reads each; null is an empty one.
    #[cfg(feature = "ask")]
    pub(crate) fn array(&mut self, mut element: impl FnMut(&mut Self) -> Option<()>) -> Option<()> {
        self.space();
        if self.word(b"null") {
            return Some(());
        }
        self.byte(b'[')?;
        self.space();
        if self.byte(b']').is_some() {
            return Some(());
        }
        loop {
            self.space();
            element(self)?;
            self.space();
            if self.byte(b',').is_none() {
                return self.byte(b']');
            }
        }
    }

    #[cfg(feature = "ask")]
    pub(crate) fn boolean(&mut self) -> Option<bool> {
        if self.word(b"true") { Some(true) } else { self.word(b"false").then_some(false) }
    }

    /// A whole number in the range of int64.
    #[cfg(feature = "ask")]
    pub(crate) fn signed(&mut self) -> Option<i64> {
        core::str::from_utf8(self.number()?).ok()?.parse().ok()
    }

    fn space(&mut self) {
        while let Some((b' ' | b'\t' | b'\r' | b'\n', rest)) = self.rest.split_first() {
            self.rest = rest;
        }
    }

    const fn at_end(&self) -> bool {
        self.rest.is_empty()
    }

    fn peek(&self) -> Option<u8> {
        self.rest.first().copied()
    }

    fn any(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn byte(&mut self, wanted: u8) -> Option<()> {
        let rest = space::behind(self.rest, &[wanted])?;
        self.rest = rest;
        Some(())
    }

    fn word(&mut self, wanted: &[u8]) -> bool {
        match space::behind(self.rest, wanted) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    /// A string with what Go does to it: invalid UTF-8 and lone surrogates become U+FFFD.
    pub(crate) fn string(&mut self) -> Option<String> {
        self.byte(b'"')?;
        let mut bytes = Vec::new();
        loop {
            match self.any()? {
                b'"' => return space::lossy(&bytes).ok(),
                b'\\' => {
                    let c = match self.any()? {
                        b'"' => '"',
                        b'\\' => '\\',
                        b'/' => '/',
                        b'b' => '\u{8}',
                        b'f' => '\u{c}',
                        b'n' => '\n',
                        b'r' => '\r',
                        b't' => '\t',
                        b'u' => self.unicode()?,
                        _ => return None,
                    };
                    space::push_char(&mut bytes, c).ok()?;
                }
                0..=0x1f => return None,
                byte => space::push(&mut bytes, byte).ok()?,
            }
        }
    }

    /// What follows `\u`, with the second half of a surrogate pair.
    fn unicode(&mut self) -> Option<char> {
        let first = self.hex4()?;
        if !(0xd800..0xdc00).contains(&first) {
            return Some(char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER));
        }
        let before = self.rest;
        if self.word(b"\\u") {
            let second = self.hex4()?;
            if (0xdc00..0xe000).contains(&second) {
                let high = (first & 0x3ff) << 10;
                let c = (high | (second & 0x3ff)).saturating_add(0x1_0000);
                return Some(char::from_u32(c).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            self.rest = before;
        }
        Some(char::REPLACEMENT_CHARACTER)
    }

    fn hex4(&mut self) -> Option<u32> {
        let (digits, rest) = self.rest.split_first_chunk::<4>()?;
        self.rest = rest;
        digits.iter().try_fold(0u32, |n, d| Some((n << 4) | char::from(*d).to_digit(16)?))
    }

    /// The literal of a number, checked against JSON's grammar.
    fn number(&mut self) -> Option<&'a [u8]> {
        let start = self.rest;
        let _ = self.byte(b'-');
        match self.any()? {
            b'0' => {}
            b'1'..=b'9' => self.digits(),
            _ => return None,
        }
        if self.byte(b'.').is_some() {
            self.some_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.any()?;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.any()?;
            }
            self.some_digits()?;
        }
        start.get(..start.len().saturating_sub(self.rest.len()))
    }

    fn digits(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_digit()) {
            self.any();
        }
    }

    fn some_digits(&mut self) -> Option<()> {
        let before = self.rest.len();
        self.digits();
        (self.rest.len() < before).then_some(())
    }

    /// A whole number in the range of int64; below zero counts as zero, since nobody looks at it.
    fn integer(&mut self) -> Option<u64> {
        let text = core::str::from_utf8(self.number()?).ok()?;
        let n: i64 = text.parse().ok()?;
        Some(u64::try_from(n).unwrap_or(0))
    }

    /// A whole number from 0 on that int64 can hold.
    pub(crate) fn unsigned(&mut self) -> Option<u64> {
        let text = core::str::from_utf8(self.number()?).ok()?;
        let n: i64 = text.parse().ok()?;
        u64::try_from(n).ok()
    }

    /// Reads over any value, without recursion: a container is a byte on a small stack.
    pub(crate) fn skip_value(&mut self) -> Option<()> {
        let mut open: Vec<u8> = Vec::new();
        loop {
            self.space();
            let mut ended = true;
            match self.peek()? {
                b'"' => {
                    self.string()?;
                }
                b'{' => {
                    self.any()?;
                    self.space();
                    if self.byte(b'}').is_none() {
                        space::push(&mut open, b'}').ok()?;
                        self.key()?;
                        ended = false;
                    }
                }
                b'[' => {
                    self.any()?;
                    self.space();
                    if self.byte(b']').is_none() {
                        space::push(&mut open, b']').ok()?;
                        ended = false;
                    }
                }
                b't' => self.word(b"true").then_some(())?,
                b'f' => self.word(b"false").then_some(())?,
                b'n' => self.word(b"null").then_some(())?,
                _ => {
                    self.number()?;
                }
            }
            while ended {
                let Some(close) = open.last().copied() else { return Some(()) };
                self.space();
                if self.byte(b',').is_some() {
                    self.space();
                    if close == b'}' {
                        self.key()?;
                    }
                    ended = false;
                } else {
                    self.byte(close)?;
                    open.pop();
                }
            }
        }
    }

    fn key(&mut self) -> Option<()> {
        self.string()?;
        self.space();
        self.byte(b':')
    }
}

/// Writes one object.
pub(super) struct Writer<'a> {
    out: &'a mut [u8],
    len: usize,
    empty: bool,
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut [u8]) -> Self {
        Self { out, len: 0, empty: true }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Option<()> {
        let end = self.len.checked_add(bytes.len())?;
        self.out.get_mut(self.len..end)?.copy_from_slice(bytes);
        self.len = end;
        Some(())
    }

    pub(super) fn key(&mut self, name: &str) -> Option<()> {
        self.put(if self.empty { b"{\"" } else { b",\"" })?;
        self.empty = false;
        self.put(name.as_bytes())?;
        self.put(b"\":")
    }

    pub(super) fn number(&mut self, name: &str, n: Option<u64>) -> Option<()> {
        let Some(n) = n else { return Some(()) };
        self.key(name)?;
        self.put(Decimal::new(n).as_str().as_bytes())
    }

    /// A string of at most `most` bytes of `text`, escaped to plain ASCII where it matters.
    pub(super) fn text(&mut self, text: &str, most: usize) -> Option<()> {
        self.put(b"\"")?;
        let mut taken = 0usize;
        for c in text.chars() {
            taken = taken.saturating_add(c.len_utf8());
            if taken > most {
                break;
            }
            match c {
                '"' => self.put(b"\\\"")?,
                '\\' => self.put(b"\\\\")?,
                '\n' => self.put(b"\\n")?,
                '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                    let n = u32::from(c);
                    let digit = |d: u32| char::from_digit(d & 0xf, 16).unwrap_or('0') as u8;
                    self.put(&[b'\\', b'u', b'0', b'0', digit(n >> 4), digit(n)])?;
                }
                _ => self.put(c.encode_utf8(&mut [0; 4]).as_bytes())?,
            }
        }
        self.put(b"\"")
    }

    pub(super) fn finish(mut self) -> Option<usize> {
        if self.empty {
            self.put(b"{")?;
        }
        self.put(b"}\n")?;
        Some(self.len)
    }
}
