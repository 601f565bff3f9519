//! A program's way through the whole session machine, without std, in which a panic is a symbol that does not exist. See
//! ci/nopanic; nothing of this is run.
#![no_std]
#![allow(missing_docs, clippy::missing_safety_doc)]

extern crate alloc;

use alloc::string::String;
use alloc::vec::Vec;
use core::alloc::{GlobalAlloc, Layout};
use core::panic::PanicInfo;
use core::slice;

use castkeep::cast::{ExitStatus, Header, Stream};
use castkeep::session::{Action, Config, LinkEvent, LinkId, Machine};
use castkeep::time::Tick;

unsafe extern "C" {
    fn malloc(n: usize) -> *mut u8;
    fn free(p: *mut u8);
    fn a_panic_is_reachable() -> !;
}

struct Host;

unsafe impl GlobalAlloc for Host {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { malloc(layout.size()) }
    }

    unsafe fn dealloc(&self, p: *mut u8, _: Layout) {
        unsafe { free(p) }
    }
}

#[global_allocator]
static HOST: Host = Host;

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    unsafe { a_panic_is_reachable() }
}

// What the prebuilt `core` names in its unwind tables.
#[unsafe(no_mangle)]
pub extern "C" fn rust_eh_personality() {}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nopanic_open(config: *const Config, out: *mut Machine) -> i32 {
    match Machine::new(unsafe { config.read() }, Tick(0)) {
        Ok(machine) => {
            unsafe { out.write(machine) };
            0
        }
        Err(_) => -1,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nopanic_config(config: &mut Config, text: *const u8, len: usize) -> i32 {
    let Ok(text) = core::str::from_utf8(unsafe { slice::from_raw_parts(text, len) }) else {
        return -1;
    };
    config.header = Header { command: Some(String::new()), ..Header::default() };
    config.recorders = Vec::new();
    i32::from(text.is_empty())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nopanic_host(m: &mut Machine, now: u64, p: *const u8, n: usize) -> u64 {
    let (now, data) = (Tick(now), unsafe { slice::from_raw_parts(p, n) });
    let taken = m.output(now, Stream::Stdout, data).unwrap_or(0);
    m.input(now, data);
    m.resize(now, 80, 24);
    let marked = m.marker(now, core::str::from_utf8(data).unwrap_or_default()).is_ok();
    m.exit(now, ExitStatus::Code(1));
    m.finish(now);
    m.abandon(now);
    let texts = m.message().len().wrapping_add(m.peer_text().len()).wrapping_add(m.room());
    m.released(Stream::Stderr).wrapping_add(texts as u64).wrapping_add(taken as u64)
        ^ u64::from(marked)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nopanic_poll(
    m: &mut Machine,
    now: u64,
    link: *mut LinkId,
    out: *mut u8,
    n: usize,
) -> u64 {
    let now = Tick(now);
    m.handle_timeout(now);
    if let Some(Action::Connect { link: id, .. }) = m.poll_action() {
        unsafe { link.write(id) };
    }
    let out = unsafe { slice::from_raw_parts_mut(out, n) };
    let sent = m.poll_transmit(now, unsafe { link.read() }, out) as u64;
    let told = u64::from(m.poll_event().is_some());
    m.poll_timeout().map_or(sent, |at| at.0).wrapping_add(told)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nopanic_link(
    m: &mut Machine,
    now: u64,
    link: *const LinkId,
    event: *const LinkEvent,
    p: *const u8,
    n: usize,
) {
    unsafe {
        m.handle_link(Tick(now), link.read(), event.read());
        m.handle_input(Tick(now), link.read(), slice::from_raw_parts(p, n));
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn nopanic_free(m: *mut Machine) {
    unsafe { m.drop_in_place() }
}
