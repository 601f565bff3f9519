//! JSON objects into memory that may be refused.

use alloc::vec::Vec;

use crate::error::Error;
use crate::space;
use crate::upload::wire::Decimal;

/// One object; texts are cut, never broken.
#[derive(Debug)]
pub(super) struct Object {
    out: Vec<u8>,
}

impl Object {
    pub(super) const fn new() -> Self {
        Self { out: Vec::new() }
    }

    fn key(&mut self, name: &str) -> Result<(), Error> {
        let before: &[u8] = if self.out.is_empty() { b"{\"" } else { b",\"" };
        space::extend(&mut self.out, before)?;
        space::extend(&mut self.out, name.as_bytes())?;
        space::extend(&mut self.out, b"\":")
    }

    /// A text of at most `most` bytes.
    pub(super) fn text(&mut self, name: &str, text: &str, most: usize) -> Result<(), Error> {
        self.key(name)?;
        put(&mut self.out, text, most)
    }

    pub(super) fn number(&mut self, name: &str, n: u64) -> Result<(), Error> {
        self.key(name)?;
        space::extend(&mut self.out, Decimal::new(n).as_str().as_bytes())
    }

    pub(super) fn yes(&mut self, name: &str) -> Result<(), Error> {
        self.key(name)?;
        space::extend(&mut self.out, b"true")
    }

    /// What `write` writes is the value.
    pub(super) fn raw(
        &mut self,
        name: &str,
        write: impl FnOnce(&mut Vec<u8>) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.key(name)?;
        write(&mut self.out)
    }

    pub(super) fn finish(mut self) -> Result<Vec<u8>, Error> {
        let end: &[u8] = if self.out.is_empty() { b"{}" } else { b"}" };
        space::extend(&mut self.out, end)?;
        Ok(self.out)
    }
}

/// A JSON string of at most `most` bytes of `text`.
pub(super) fn put(out: &mut Vec<u8>, text: &str, most: usize) -> Result<(), Error> {
    space::push(out, b'"')?;
    let mut taken = 0usize;
    for c in text.chars() {
        taken = taken.saturating_add(c.len_utf8());
        if taken > most {
            break;
        }
        match c {
            '"' => space::extend(out, b"\\\"")?,
            '\\' => space::extend(out, b"\\\\")?,
            '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => {
                let n = u32::from(c);
                let digit = |d: u32| char::from_digit(d & 0xf, 16).unwrap_or('0') as u8;
                space::extend(out, &[b'\\', b'u', b'0', b'0', digit(n >> 4), digit(n)])?;
            }
            _ => space::push_char(out, c)?,
        }
    }
    space::push(out, b'"')
}
