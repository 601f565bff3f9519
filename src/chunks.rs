//! `slice::as_chunks` for compilers that do not have it: the client without HTTP/2 keeps to Rust 1.85.
#![forbid(unsafe_code)]

/// The front of `slice` in groups of `N`, and what is left.
pub(crate) fn of<const N: usize>(slice: &[u8]) -> (impl Iterator<Item = &[u8; N]>, &[u8]) {
    let groups = slice.chunks_exact(N);
    let rest = groups.remainder();
    (groups.filter_map(<[u8]>::first_chunk), rest)
}

/// The front of `slice` in groups of `N` to write to.
pub(crate) fn of_mut<const N: usize>(slice: &mut [u8]) -> impl Iterator<Item = &mut [u8; N]> {
    slice.chunks_exact_mut(N).filter_map(<[u8]>::first_chunk_mut)
}
