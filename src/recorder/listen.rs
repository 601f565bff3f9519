//! Binding, accepting, and the bound on connections.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{AddressFamily, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use super::config::StartError;
use super::shared::{Phase, Shared, count};
use super::wake::Waker;
use super::{CONNECTION_STACK, connection, health};
use crate::limits;

/// One bound socket.
#[derive(Debug)]
pub(crate) struct Bound {
    pub(crate) listener: TcpListener,
    pub(crate) address: SocketAddr,
    pub(crate) role: Role,
}

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// Uploads, in clear text.
    Clear,
    /// Uploads, over TLS.
    Tls,
    /// Health and metrics.
    Health,
}

/// Binds one address.
pub(crate) fn bind(flag: &str, address: SocketAddr, role: Role) -> Result<Bound, StartError> {
    let listener = open(address).map_err(|e| {
        let todo = match e.kind() {
            ErrorKind::AddrInUse => "another program listens there: stop it or choose another port",
            ErrorKind::PermissionDenied => {
                "ports below 1024 need root or the capability CAP_NET_BIND_SERVICE"
            }
            ErrorKind::AddrNotAvailable => "no interface of this machine has that address",
            _ => "",
        };
        StartError::new(&format!("{flag} {address}"), &e.to_string(), todo)
    })?;
    let bound = listener
        .local_addr()
        .map_err(|e| StartError::new(&format!("{flag} {address}"), &e.to_string(), ""))?;
    Ok(Bound { listener, address: bound, role })
}

/// Accepts until the recorder aborts or has stopped. One thread for all listeners.
pub(crate) fn accept_loop(shared: &Arc<Shared>, listeners: &[Bound], waker: &Waker) {
    let mut spare = File::open("/dev/null").ok();
    loop {
        let pause = {
            let mut fds: Vec<_> =
                listeners.iter().map(|l| PollFd::new(&l.listener, PollFlags::IN)).collect();
            fds.push(PollFd::new(waker, PollFlags::IN));
            // A signal in between is just another look.
            let _ = poll(&mut fds, None);
            waker.clear();
            if shared.phase() >= Phase::Stopping {
                return;
            }
            let ready: Vec<_> = fds.iter().map(|f| !f.revents().is_empty()).collect();
            let mut pause = false;
            for (bound, _) in listeners.iter().zip(ready).filter(|(_, ready)| *ready) {
                pause |= accept_some(shared, bound, &mut spare);
            }
            pause
        };
        if pause {
            // Out of something that only others can give back: do not spin on a readable listener.
            let _ = poll(&mut [PollFd::new(waker, PollFlags::IN)], Some(&ACCEPT_PAUSE));
        }
    }
}

/// Takes what waits at one listener, at most some. True: the system is short of something.
fn accept_some(shared: &Arc<Shared>, bound: &Bound, spare: &mut Option<File>) -> bool {
    for _ in 0..ACCEPTS_A_ROUND {
        match bound.listener.accept() {
            Ok((tcp, peer)) => dispatch(shared, bound.role, tcp, peer),
            Err(e) => match e.kind() {
                ErrorKind::WouldBlock => return false,
                ErrorKind::Interrupted | ErrorKind::ConnectionAborted => {}
                _ => {
                    count(&shared.counters.accept_errors);
                    if !is_short_of_descriptors(&e) {
                        return true;
                    }
                    // One descriptor is kept for this: the peer is told instead of being left to hang.
                    shared.warn_short("out of file descriptors");
                    *spare = None;
                    let accepted = bound.listener.accept();
                    if let Ok((tcp, _)) = accepted {
                        refuse_bare(tcp);
                    }
                    *spare = File::open("/dev/null").ok();
                    return true;
                }
            },
        }
    }
    false
}

fn dispatch(shared: &Arc<Shared>, role: Role, tcp: TcpStream, peer: SocketAddr) {
    if tcp.set_nonblocking(true).is_err() {
        return;
    }
    let place = match role {
        Role::Health => Place::Health,
        Role::Clear | Role::Tls if shared.allow.may_allow(peer.ip()) => Place::Upload,
        Role::Clear | Role::Tls => Place::Stranger,
    };
    let (bound, hard_bound) = match place {
        Place::Health => (limits::METRICS_CONNECTIONS, limits::METRICS_CONNECTIONS),
        Place::Upload => {
            let bound = shared.config.max_connections;
            (bound, bound.saturating_add(limits::CONNECTIONS_REFUSED))
        }
        Place::Stranger => (limits::CONNECTIONS_REFUSED, limits::CONNECTIONS_REFUSED),
    };
    let open = place.counter(shared).fetch_add(1, Ordering::AcqRel);
    let over = open >= bound;
    if over {
        count(&shared.counters.refused);
    }
    let slot = Slot { shared: Arc::clone(shared), place };
    if open >= hard_bound {
        if role != Role::Tls {
            refuse_bare(tcp);
        }
        return;
    }
    let builder = thread::Builder::new().name("castkeep-conn".into()).stack_size(CONNECTION_STACK);
    let spawned = builder.spawn(move || {
        let shared = Arc::clone(&slot.shared);
        match role {
            Role::Health => health::serve(&shared, tcp),
            Role::Clear | Role::Tls => {
                count(&shared.counters.connections);
                connection::serve(&shared, tcp, peer, role == Role::Tls, over);
            }
        }
        drop(slot);
    });
    if let Err(e) = spawned {
        // The closure, and with it socket and slot, is gone: the peer sees a close.
        count(&shared.counters.refused);
        shared.warn_short(&format!("no thread for it: {e}"));
    }
}

/// Among which connections one is counted.
#[derive(Clone, Copy)]
enum Place {
    Health,
    Upload,
    /// Whatever it says, it may not upload: it gets its 403, but not at the cost of those who may.
    Stranger,
}

impl Place {
    fn counter(self, shared: &Shared) -> &AtomicUsize {
        match self {
            Self::Health => &shared.counters.metrics_open,
            Self::Upload => &shared.counters.open,
            Self::Stranger => &shared.counters.strangers,
        }
    }
}

/// A place within the bound.
struct Slot {
    shared: Arc<Shared>,
    place: Place,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.place.counter(&self.shared).fetch_sub(1, Ordering::AcqRel);
    }
}

/// Says 503 without looking at what was asked. An HTTP/2 client takes it for what it is: not HTTP/2, at once.
pub(crate) fn refuse_bare(mut tcp: TcpStream) {
    let _ = tcp.set_nonblocking(true);
    // What is unread at close turns the close into a reset, which may overtake the answer.
    let _ = tcp.read(&mut [0u8; 4096]);
    let _ = tcp.write_all(
        b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain\r\nContent-Length: 21\r\n\
          Connection: close\r\n\r\ntoo many connections\n",
    );
    let _ = tcp.shutdown(Shutdown::Write);
}

/// Raises the limit of open files to what is allowed: a session holds up to four descriptors.
pub(crate) fn raise_open_files(wanted: usize) {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return warn_open_files(limit.current, wanted);
    }
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match setrlimit(Resource::Nofile, raised) {
        Ok(()) => warn_open_files(limit.maximum, wanted),
        Err(_) => warn_open_files(limit.current, wanted),
    }
}

fn warn_open_files(have: Option<u64>, connections: usize) {
    let need = u64::try_from(connections).unwrap_or(u64::MAX).saturating_mul(4).saturating_add(64);
    if let Some(have) = have.filter(|have| *have < need) {
        log::warn!(
            "at most {have} files can be open, {connections} connections can need {need}: raise the limit \
             (ulimit -Hn, LimitNOFILE=) or give --max-connections"
        );
    }
}

/// Options of an accepted upload connection.
pub(crate) fn set_options(tcp: &TcpStream, user_timeout: Duration) {
    let _ = tcp.set_nodelay(true);
    let ms = u32::try_from(user_timeout.as_millis()).unwrap_or(u32::MAX);
    let _ = sockopt::set_tcp_user_timeout(tcp, ms);
    // A peer that is only listened to is probed when it was silent for as long, and counts as dead at the first probe after
    // that without an answer: with the user timeout set, the count is not looked at.
    let second = Duration::from_secs(1);
    let _ = sockopt::set_tcp_keepidle(tcp, user_timeout.max(second));
    let _ = sockopt::set_tcp_keepintvl(tcp, (user_timeout / limits::KEEPALIVE_PARTS).max(second));
    let _ = sockopt::set_socket_keepalive(tcp, true);
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(family, SocketType::STREAM, flags, None)?;
    sockopt::set_socket_reuseaddr(&fd, true)?;
    rustix::net::bind(&fd, &address)?;
    rustix::net::listen(&fd, BACKLOG)?;
    Ok(fd.into())
}

pub(crate) fn is_short_of_descriptors(error: &io::Error) -> bool {
    let errno = rustix::io::Errno::from_io_error(error);
    matches!(errno, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// Many clients come back at the same moment after a restart.
const BACKLOG: i32 = 1024;
const ACCEPTS_A_ROUND: usize = 64;
const ACCEPT_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
