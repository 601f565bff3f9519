//! Read buffers that connections share.
//!
//! A buffer is held while bytes are moved and given back before the thread waits: thousands of idle connections hold none.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use crate::limits::{READ_BUFFERS, READ_BYTES};

/// The buffers of a recorder.
#[derive(Debug, Default)]
pub(crate) struct Pool {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    free: Vec<Box<[u8]>>,
    made: usize,
}

impl Pool {
    /// A buffer of [`READ_BYTES`], or None when all [`READ_BUFFERS`] are in use: read into something small then, since
    /// waiting for one would let a slow disk hold up connections that have nothing to do with it.
    pub(crate) fn take(self: &Arc<Self>) -> Option<Buffer> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let bytes = match state.free.pop() {
            Some(bytes) => bytes,
            None if state.made < READ_BUFFERS => {
                state.made += 1;
                vec![0; READ_BYTES].into_boxed_slice()
            }
            None => return None,
        };
        drop(state);
        Some(Buffer { bytes, pool: Arc::clone(self) })
    }
}

/// A borrowed buffer.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    pool: Arc<Pool>,
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.pool.state.lock().unwrap_or_else(PoisonError::into_inner).free.push(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_bounded_and_come_back() {
        let pool = Arc::new(Pool::default());
        let held: Vec<_> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(held.len(), READ_BUFFERS);
        assert!(pool.take().is_none());
        drop(held);
        assert_eq!(pool.take().unwrap().len(), READ_BYTES);
    }
}
