//! System calls of the client, by the C library of the host: what a library of Rust's does for the rest of castkeep cannot be
//! shown to be free of panics, and this part has to be (`ci/tiny`).
#![allow(unsafe_code)]

use core::ffi::{c_char, c_int, c_void};
use core::net::SocketAddr;

use libc::{AF_INET, AF_INET6, AF_UNIX, CLOCK_MONOTONIC, CLOCK_REALTIME, socklen_t, timespec};

use super::config::Endpoint;
use crate::error::{Error, Link};
use crate::limits;
use crate::time::{Span, Tick};

/// A descriptor that is closed with it.
pub(super) struct Fd(c_int);

impl Drop for Fd {
    fn drop(&mut self) {
        // SAFETY: it is ours, and closed once.
        unsafe { libc::close(self.0) };
    }
}

impl Fd {
    /// Takes a descriptor over.
    pub(super) const fn from_raw(fd: c_int) -> Self {
        Self(fd)
    }

    pub(super) const fn raw(&self) -> c_int {
        self.0
    }
}

#[cfg(feature = "std")]
impl std::os::fd::AsFd for Fd {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        // SAFETY: it is open as long as it is borrowed.
        unsafe { std::os::fd::BorrowedFd::borrow_raw(self.0) }
    }
}

/// errno.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Errno(c_int);

impl Errno {
    /// Nothing now, or interrupted.
    pub(super) const fn is_later(self) -> bool {
        matches!(self.0, libc::EAGAIN | libc::EINTR)
    }

    #[cfg(feature = "tls")]
    pub(super) const fn raw(self) -> c_int {
        self.0
    }

    #[cfg(feature = "tls")]
    pub(super) const fn from_raw(number: c_int) -> Self {
        Self(number)
    }
}

impl From<Errno> for Error {
    fn from(why: Errno) -> Self {
        Self::Link(match why.0 {
            libc::ECONNRESET | libc::EPIPE | libc::ETIMEDOUT => Link::Reset,
            _ => Link::Unreachable,
        })
    }
}

/// An address in the kernel's form.
struct Address {
    bytes: [u8; ADDRESS_BYTES],
    len: socklen_t,
    family: c_int,
}

impl Address {
    /// None: a path that no socket can have.
    fn new(of: &Endpoint) -> Option<Self> {
        let mut bytes = [0; ADDRESS_BYTES];
        let (family, len) = match of {
            Endpoint::Tcp(SocketAddr::V4(addr)) => {
                put(&mut bytes, 2, &addr.port().to_be_bytes());
                put(&mut bytes, 4, &addr.ip().octets());
                (AF_INET, 16)
            }
            Endpoint::Tcp(SocketAddr::V6(addr)) => {
                put(&mut bytes, 2, &addr.port().to_be_bytes());
                put(&mut bytes, 4, &addr.flowinfo().to_ne_bytes());
                put(&mut bytes, 8, &addr.ip().octets());
                put(&mut bytes, 24, &addr.scope_id().to_ne_bytes());
                (AF_INET6, 28)
            }
            Endpoint::Unix(path) => {
                if path.is_empty() || path.contains(&0) || path.len() > limits::SOCKET_PATH_BYTES {
                    return None;
                }
                put(&mut bytes, 2, path);
                (AF_UNIX, socklen_t::try_from(path.len()).ok()?.wrapping_add(3))
            }
            Endpoint::Named(_) => return None,
        };
        put(&mut bytes, 0, &libc::sa_family_t::try_from(family).ok()?.to_ne_bytes());
        Some(Self { bytes, len, family })
    }
}

fn put(to: &mut [u8; ADDRESS_BYTES], at: usize, from: &[u8]) {
    to.iter_mut().skip(at).zip(from).for_each(|(to, from)| *to = *from);
}

unsafe extern "C" {
    fn inet_pton(family: c_int, text: *const c_char, out: *mut c_void) -> c_int;
}

/// `192.0.2.7:80` or `[2001:db8::7]:80`. The standard library's reader has paths to a panic.
pub(super) fn socket_addr(text: &str) -> Option<SocketAddr> {
    let colon = text.bytes().rposition(|b| b == b':')?;
    let (front, port) = (text.get(..colon)?, text.get(colon.wrapping_add(1)..)?);
    let ip = match front.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?,
        None => front,
    };
    if port.is_empty() || ip.len() >= IP_TEXT_BYTES {
        return None;
    }
    let port = port.bytes().try_fold(0u16, |n, b| {
        let digit = b.is_ascii_digit().then(|| u16::from(b & 15))?;
        n.checked_mul(10)?.checked_add(digit)
    })?;
    let mut terminated = [0u8; IP_TEXT_BYTES];
    terminated.iter_mut().zip(ip.bytes()).for_each(|(to, b)| *to = b);
    let read = |family, out: *mut c_void| {
        // SAFETY: the text ends in NUL, and what `out` points at takes an address of the family.
        unsafe { inet_pton(family, terminated.as_ptr().cast(), out) == 1 }
    };
    if text.starts_with('[') {
        let mut bytes = [0u8; 16];
        read(AF_INET6, bytes.as_mut_ptr().cast()).then(|| SocketAddr::from((bytes, port)))
    } else {
        let mut bytes = [0u8; 4];
        read(AF_INET, bytes.as_mut_ptr().cast()).then(|| SocketAddr::from((bytes, port)))
    }
}

/// A socket that has begun to connect; whether it is connected.
pub(super) fn connect(to: &Endpoint) -> Result<(Fd, bool), Error> {
    let address = Address::new(to).ok_or(Error::Link(Link::Unreachable))?;
    let kind = libc::SOCK_STREAM | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: takes numbers.
    let fd = Fd(check(unsafe { libc::socket(address.family, kind, 0) })?);
    if address.family != AF_UNIX {
        // Wishes: a kernel without one of them still makes a connection.
        let _ = set(&fd, libc::IPPROTO_TCP, libc::TCP_NODELAY, 1);
        let _ = set(&fd, libc::SOL_SOCKET, libc::SO_KEEPALIVE, 1);
        let ms = c_int::try_from(limits::TCP_USER_TIMEOUT.0 / 1_000).unwrap_or(c_int::MAX);
        let _ = set(&fd, libc::IPPROTO_TCP, libc::TCP_USER_TIMEOUT, ms);
    }
    // SAFETY: `bytes` holds an address of that length.
    match check(unsafe { libc::connect(fd.0, address.bytes.as_ptr().cast(), address.len) }) {
        Ok(_) => Ok((fd, true)),
        Err(Errno(libc::EINPROGRESS)) => Ok((fd, false)),
        Err(why) => Err(why.into()),
    }
}

/// Whether a socket is connected by now.
pub(super) fn is_connected(fd: &Fd) -> Result<bool, Errno> {
    let mut error: c_int = 0;
    let mut len = INT_BYTES;
    // SAFETY: SO_ERROR is an int.
    check(unsafe {
        libc::getsockopt(
            fd.0,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut error).cast(),
            &raw mut len,
        )
    })?;
    if error != 0 {
        return Err(Errno(error));
    }
    // SO_ERROR is 0 both before and after a connect in progress ends; only the peer's name tells.
    let mut bytes = [0u8; 128];
    let mut len = 128;
    // SAFETY: writes at most `len` bytes.
    match check(unsafe { libc::getpeername(fd.0, bytes.as_mut_ptr().cast(), &raw mut len) }) {
        Ok(_) => Ok(true),
        Err(Errno(libc::ENOTCONN)) => Ok(false),
        Err(why) => Err(why),
    }
}

fn set(fd: &Fd, level: c_int, name: c_int, value: c_int) -> Result<c_int, Errno> {
    // SAFETY: the options that are set are ints.
    check(unsafe { libc::setsockopt(fd.0, level, name, (&raw const value).cast(), INT_BYTES) })
}

/// What closes the socket later resets the connection.
pub(super) fn reset_on_close(fd: &Fd) {
    let linger = libc::linger { l_onoff: 1, l_linger: 0 };
    let len = socklen_t::try_from(size_of::<libc::linger>()).unwrap_or(0);
    // SAFETY: a linger of that length.
    unsafe {
        libc::setsockopt(fd.0, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), len)
    };
}

/// Nothing more is sent.
pub(super) fn shut(fd: &Fd) {
    // SAFETY: takes numbers.
    unsafe { libc::shutdown(fd.0, libc::SHUT_WR) };
}

/// Never raises SIGPIPE, never waits.
pub(super) fn send(fd: &Fd, bytes: &[u8]) -> Result<usize, Errno> {
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: reads the slice.
    amount(unsafe { libc::send(fd.0, bytes.as_ptr().cast(), bytes.len(), flags) })
}

/// Never waits.
pub(super) fn recv(fd: &Fd, bytes: &mut [u8]) -> Result<usize, Errno> {
    // SAFETY: writes at most the slice.
    amount(unsafe { libc::recv(fd.0, bytes.as_mut_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT) })
}

/// An epoll descriptor.
pub(super) fn epoll() -> Result<Fd, Errno> {
    // SAFETY: takes a number.
    check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) }).map(Fd)
}

/// What a socket is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wants {
    pub(super) read: bool,
    pub(super) write: bool,
}

/// What became of a socket that was waited for.
#[derive(Clone, Copy)]
pub(super) struct Ready {
    /// As given to [`watch`].
    pub(super) serial: u64,
    /// Nothing more will come of it.
    pub(super) broken: bool,
}

/// Adds a descriptor to the set.
pub(super) fn watch(epoll: &Fd, fd: c_int, serial: u64, wants: Wants) -> bool {
    control(epoll, fd, libc::EPOLL_CTL_ADD, serial, wants)
}

/// Changes what it is waited for.
pub(super) fn rewatch(epoll: &Fd, fd: c_int, serial: u64, wants: Wants) -> bool {
    control(epoll, fd, libc::EPOLL_CTL_MOD, serial, wants)
}

/// Takes it out: before it is closed, because a child may hold a copy of it, and epoll would go on about that.
pub(super) fn unwatch(epoll: &Fd, fd: c_int) {
    control(epoll, fd, libc::EPOLL_CTL_DEL, 0, Wants { read: false, write: false });
}

/// The kernel's type of a set of flags. (`cast_unsigned` is newer than the Rust that the client keeps to.)
const fn bits(flags: c_int) -> u32 {
    u32::from_ne_bytes(flags.to_ne_bytes())
}

fn control(epoll: &Fd, fd: c_int, what: c_int, serial: u64, wants: Wants) -> bool {
    let read = if wants.read { libc::EPOLLIN } else { 0 };
    let write = if wants.write { libc::EPOLLOUT } else { 0 };
    let mut event = libc::epoll_event { events: bits(read | write), u64: serial };
    // SAFETY: `event` lives across the call.
    unsafe { libc::epoll_ctl(epoll.0, what, fd, &raw mut event) == 0 }
}

/// What of the set is ready now, at most as many as `out` takes; how many.
pub(super) fn ready(epoll: &Fd, out: &mut [Ready; READY]) -> usize {
    let mut events = [const { libc::epoll_event { events: 0, u64: 0 } }; READY];
    let most = c_int::try_from(READY).unwrap_or(1);
    // SAFETY: writes at most `most` events.
    let found = unsafe { libc::epoll_wait(epoll.0, events.as_mut_ptr(), most, 0) };
    let found = usize::try_from(found).unwrap_or(0).min(READY);
    for (to, event) in out.iter_mut().zip(&events) {
        let flags = bits(libc::EPOLLERR | libc::EPOLLHUP);
        *to = Ready { serial: event.u64, broken: event.events & flags != 0 };
    }
    found
}

/// A timer that makes a descriptor readable.
pub(super) fn timer() -> Result<Fd, Errno> {
    // SAFETY: takes numbers.
    check(unsafe { libc::timerfd_create(CLOCK_MONOTONIC, libc::TFD_CLOEXEC | libc::TFD_NONBLOCK) })
        .map(Fd)
}

/// In `span`, once.
pub(super) fn set_timer(timer: &Fd, span: Span) -> bool {
    // Never zero, which would switch it off.
    let set = libc::itimerspec { it_interval: time(0), it_value: time(span.0.max(1)) };
    // SAFETY: `set` lives across the call; the old value is not asked for.
    unsafe { libc::timerfd_settime(timer.0, 0, &raw const set, core::ptr::null_mut()) == 0 }
}

pub(super) fn clear_timer(timer: &Fd) {
    let mut count = 0u64;
    // SAFETY: a timer gives 8 bytes.
    unsafe { libc::read(timer.0, (&raw mut count).cast::<c_void>(), 8) };
}

/// Waits for a descriptor to become readable, at most so long.
pub(super) fn wait(fd: &Fd, span: Span) {
    let mut entry = libc::pollfd { fd: fd.0, events: libc::POLLIN, revents: 0 };
    let ms = c_int::try_from(span.0 / 1_000).unwrap_or(c_int::MAX).saturating_add(1);
    // SAFETY: one entry, which lives across the call.
    unsafe { libc::poll(&raw mut entry, 1, ms) };
}

/// Random bytes of the kernel's; blocks only until its generator is seeded at boot.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    // SAFETY: writes at most the slice. Up to 256 bytes come whole.
    let n = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), N, 0) };
    if usize::try_from(n) == Ok(N) { Ok(bytes) } else { Err(Error::NoMemory) }
}

/// Time since the machine started.
pub(super) fn now() -> Tick {
    let (seconds, nanoseconds) = clock(CLOCK_MONOTONIC);
    Tick(seconds.saturating_mul(1_000_000).saturating_add(nanoseconds / 1_000))
}

/// Seconds since 1970.
pub(super) fn wall_clock() -> i64 {
    i64::try_from(clock(CLOCK_REALTIME).0).unwrap_or(0)
}

fn clock(which: libc::clockid_t) -> (u64, u64) {
    let mut now = time(0);
    // SAFETY: writes one timespec.
    unsafe { libc::clock_gettime(which, &raw mut now) };
    (u64::try_from(now.tv_sec).unwrap_or(0), u64::try_from(now.tv_nsec).unwrap_or(0))
}

fn time(us: u64) -> timespec {
    // SAFETY: all zeros is a time; it has padding on some processors, and cannot be written as a literal.
    let mut time: timespec = unsafe { core::mem::zeroed() };
    time.tv_sec = (us / 1_000_000).try_into().unwrap_or(1);
    time.tv_nsec = (us % 1_000_000).saturating_mul(1_000).try_into().unwrap_or(0);
    time
}

fn check(result: c_int) -> Result<c_int, Errno> {
    // SAFETY: the place of errno is always there.
    if result < 0 { Err(Errno(unsafe { *libc::__errno_location() })) } else { Ok(result) }
}

fn amount(result: isize) -> Result<usize, Errno> {
    usize::try_from(result).map_err(|_| Errno(check(-1).err().map_or(0, |e| e.0)))
}

/// Descriptors served in one call; more make the set readable again at once.
pub(super) const READY: usize = 32;
/// What no descriptor has reported yet.
pub(super) const NOTHING: Ready = Ready { serial: 0, broken: false };
/// A sockaddr_un, the largest of the three.
const ADDRESS_BYTES: usize = 110;
const INT_BYTES: socklen_t = 4;
/// The longest IPv6 address, with a NUL.
const IP_TEXT_BYTES: usize = 46;
