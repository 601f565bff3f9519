//! A box whose memory may be refused.
#![allow(unsafe_code)]

use alloc::alloc::alloc;
use alloc::boxed::Box;
use core::alloc::Layout;

use crate::error::Error;

/// Moves a value to memory of its own, where `Box::new` would abort.
///
/// # Errors
/// `NoMemory`.
pub fn boxed<T>(value: T) -> Result<Box<T>, Error> {
    let layout = Layout::new::<T>();
    if layout.size() == 0 {
        return Ok(Box::new(value));
    }
    // SAFETY: the layout has a size.
    let place = unsafe { alloc(layout) }.cast::<T>();
    if place.is_null() {
        return Err(Error::NoMemory);
    }
    // SAFETY: from the global allocator with the layout of T, and written before it is owned.
    unsafe {
        place.write(value);
        Ok(Box::from_raw(place))
    }
}
