//! Memory that may be refused, and copies that cannot fail.
//!
//! The collections of `alloc` end in a panic when memory runs out; here that is [`Error::NoMemory`]. Everything that the client
//! reaches allocates through these functions, and through no others: each collection's own call then has one caller in front of
//! which it is known that there is room, so that no path to a panic is left in a program without `std` (`ci/tiny` proves it).
#![forbid(unsafe_code)]

use alloc::string::String;
use alloc::vec::Vec;

use crate::error::Error;

/// Reserves room for exactly `more` values.
pub fn reserve<T>(to: &mut Vec<T>, more: usize) -> Result<(), Error> {
    to.try_reserve_exact(more).map_err(|_| Error::NoMemory)
}

/// Appends a value; grows in steps.
pub fn push<T>(to: &mut Vec<T>, value: T) -> Result<(), Error> {
    if to.len() == to.capacity() {
        to.try_reserve(1).map_err(|_| Error::NoMemory)?;
    }
    if to.len() == to.capacity() {
        return Err(Error::Bug);
    }
    to.push(value);
    Ok(())
}

/// Appends bytes; grows in steps.
pub fn extend(to: &mut Vec<u8>, more: &[u8]) -> Result<(), Error> {
    to.try_reserve(more.len()).map_err(|_| Error::NoMemory)?;
    if to.capacity().wrapping_sub(to.len()) < more.len() {
        return Err(Error::Bug);
    }
    to.extend_from_slice(more);
    Ok(())
}

/// Appends a character as UTF-8.
pub fn push_char(to: &mut Vec<u8>, c: char) -> Result<(), Error> {
    let code = u32::from(c);
    // The last byte first: six bits each, then what is left behind the mark of the length.
    let tail = |shift: u32| 0x80 | (code >> shift & 0x3f) as u8;
    let head = |mark: u8, shift: u32| mark | (code >> shift) as u8;
    match code {
        0..=0x7f => push(to, code as u8),
        0x80..=0x7ff => extend(to, &[head(0xc0, 6), tail(0)]),
        0x800..=0xffff => extend(to, &[head(0xe0, 12), tail(6), tail(0)]),
        _ => extend(to, &[head(0xf0, 18), tail(12), tail(6), tail(0)]),
    }
}

/// `n` bytes, all 0.
pub fn zeros(n: usize) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    reserve(&mut bytes, n)?;
    while bytes.len() < n {
        let left = n.wrapping_sub(bytes.len());
        extend(&mut bytes, ZEROS.get(..left).unwrap_or(&ZEROS))?;
    }
    Ok(bytes)
}

/// A copy of a text.
pub fn string(text: &str) -> Result<String, Error> {
    let mut bytes = Vec::new();
    reserve(&mut bytes, text.len())?;
    extend(&mut bytes, text.as_bytes())?;
    String::from_utf8(bytes).map_err(|_| Error::Bug)
}

/// Text of bytes, U+FFFD for what is not UTF-8.
pub fn lossy(bytes: &[u8]) -> Result<String, Error> {
    let mut text = Vec::new();
    reserve(&mut text, bytes.len())?;
    for chunk in bytes.utf8_chunks() {
        extend(&mut text, chunk.valid().as_bytes())?;
        if !chunk.invalid().is_empty() {
            extend(&mut text, "\u{fffd}".as_bytes())?;
        }
    }
    String::from_utf8(text).map_err(|_| Error::Bug)
}

/// Copies as much as both have.
pub fn copy(to: &mut [u8], from: &[u8]) {
    for (to, from) in to.iter_mut().zip(from) {
        *to = *from;
    }
}

/// As `<[u8]>::strip_prefix`, which is written with a panic that not every compilation can do without.
#[must_use]
pub fn behind<'a>(text: &'a [u8], prefix: &[u8]) -> Option<&'a [u8]> {
    if text.starts_with(prefix) { text.get(prefix.len()..) } else { None }
}

/// A queue of at most so many values, reserved when it is made.
#[derive(Debug)]
pub struct Queue<T> {
    slots: Vec<Option<T>>,
    /// 0 <= first < slots.len(), or both are 0
    first: usize,
    /// 0 <= len <= slots.len()
    len: usize,
}

impl<T> Queue<T> {
    pub fn new(most: usize) -> Result<Self, Error> {
        let mut slots = Vec::new();
        reserve(&mut slots, most)?;
        for _ in 0..most {
            push(&mut slots, None)?;
        }
        Ok(Self { slots, first: 0, len: 0 })
    }

    /// False: it is full.
    pub fn push_back(&mut self, value: T) -> bool {
        let at = self.slot(self.len);
        if self.len == self.slots.len() {
            return false;
        }
        let Some(slot) = self.slots.get_mut(at) else { return false };
        *slot = Some(value);
        self.len = self.len.saturating_add(1);
        true
    }

    pub fn pop_front(&mut self) -> Option<T> {
        let value = self.slots.get_mut(self.first)?.take()?;
        self.first = self.slot(1);
        self.len = self.len.saturating_sub(1);
        Some(value)
    }

    pub fn front(&self) -> Option<&T> {
        self.iter().next()
    }

    pub fn back_mut(&mut self) -> Option<&mut T> {
        let at = self.slot(self.len.checked_sub(1)?);
        self.slots.get_mut(at)?.as_mut()
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        (0..self.len).filter_map(|i| self.slots.get(self.slot(i))?.as_ref())
    }

    /// Keeps those for which `keep` says so, which is asked in order and may change them.
    pub fn retain(&mut self, mut keep: impl FnMut(&mut T) -> bool) {
        for _ in 0..self.len {
            let Some(mut value) = self.pop_front() else { return };
            if keep(&mut value) {
                self.push_back(value);
            }
        }
    }

    pub(crate) const fn len(&self) -> usize {
        self.len
    }

    /// Where the value `behind` the first one lies.
    fn slot(&self, behind: usize) -> usize {
        let at = self.first.saturating_add(behind);
        at.checked_sub(self.slots.len()).unwrap_or(at)
    }
}

/// What [`zeros`] is made of.
static ZEROS: [u8; 256] = [0; 256];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_goes_round_and_keeps_its_order() -> Result<(), Error> {
        let mut queue = Queue::new(4)?;
        for n in 0..10 {
            assert!(queue.push_back(n));
            assert!(queue.push_back(n + 100));
            assert_eq!(queue.pop_front(), Some(n));
            assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [n + 100]);
            assert_eq!(queue.pop_front(), Some(n + 100));
            assert_eq!((queue.pop_front(), queue.len()), (None, 0));
        }
        assert!((0..4).all(|n| queue.push_back(n)));
        assert!(!queue.push_back(4), "a full queue takes nothing");
        queue.retain(|n| *n % 2 == 1);
        assert_eq!(queue.iter().copied().collect::<Vec<_>>(), [1, 3]);
        *queue.back_mut().expect("two are left") = 5;
        assert_eq!((queue.front(), queue.len()), (Some(&1), 2));
        assert!(!Queue::new(0)?.push_back(()));
        Ok(())
    }

    #[test]
    fn lossy_is_what_the_standard_library_makes() -> Result<(), Error> {
        for bytes in
            [&b"plain"[..], b"", b"a\xff\xc3", b"\xf0\x9f\x98x\xed\xa0\x80", "ü€".as_bytes()]
        {
            assert_eq!(lossy(bytes)?, String::from_utf8_lossy(bytes));
        }
        Ok(())
    }

    #[test]
    fn every_character_is_the_utf8_of_the_standard_library() -> Result<(), Error> {
        let mut text = Vec::new();
        let all = ['\0'..='\u{d7ff}', '\u{e000}'..=char::MAX];
        for c in all.into_iter().flatten() {
            text.clear();
            push_char(&mut text, c)?;
            assert_eq!(text, c.encode_utf8(&mut [0; 4]).as_bytes());
        }
        Ok(())
    }

    #[test]
    fn refused_memory_is_an_error() {
        assert_eq!(zeros(usize::MAX).err(), Some(Error::NoMemory));
        let mut values = Vec::<u64>::new();
        assert_eq!(reserve(&mut values, usize::MAX / 8), Err(Error::NoMemory));
    }
}
