//! What `std` would bring.
#![allow(unsafe_code)]

use core::alloc::{GlobalAlloc, Layout};
use core::ffi::c_void;
use core::panic::PanicInfo;

unsafe extern "C" {
    fn malloc(size: usize) -> *mut c_void;
    fn free(memory: *mut c_void);
    fn realloc(memory: *mut c_void, size: usize) -> *mut c_void;
    /// Exists nowhere: a program in which a panic can be reached does not link.
    #[cfg(not(debug_assertions))]
    fn castkeep_a_panic_can_be_reached() -> !;
    #[cfg(debug_assertions)]
    fn abort() -> !;
}

/// The host's own allocator. Nothing here wants more than the alignment that malloc gives.
struct Malloc;

// SAFETY: malloc, realloc and free keep the contract for every alignment up to that of max_align_t, which is checked; a refused
// request is null in both worlds.
unsafe impl GlobalAlloc for Malloc {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if layout.align() > 2 * size_of::<usize>() {
            return core::ptr::null_mut();
        }
        // SAFETY: any size is allowed.
        unsafe { malloc(layout.size()).cast() }
    }

    unsafe fn dealloc(&self, memory: *mut u8, _: Layout) {
        // SAFETY: the memory came from `alloc`.
        unsafe { free(memory.cast()) }
    }

    unsafe fn realloc(&self, memory: *mut u8, _: Layout, size: usize) -> *mut u8 {
        // SAFETY: the memory came from `alloc`, whose alignment malloc keeps.
        unsafe { realloc(memory.cast(), size).cast() }
    }
}

#[global_allocator]
static MALLOC: Malloc = Malloc;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    // SAFETY: does not return; in a release build it is never linked.
    #[cfg(not(debug_assertions))]
    unsafe {
        castkeep_a_panic_can_be_reached()
    }
    // SAFETY: does not return.
    #[cfg(debug_assertions)]
    unsafe {
        abort()
    }
}

/// The prebuilt `core` names it in its unwind tables; nothing unwinds here.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}
