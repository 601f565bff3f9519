//! Accepting, and the bounds on connections.

use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::shared::{Shared, count};
use super::{connection, metrics};
use crate::limits;
use crate::recorder::CONNECTION_STACK;
use crate::recorder::listen::{Bound, Role, is_short_of_descriptors, refuse_bare};
use crate::recorder::wake::Waker;

/// Accepts until control stops. One thread for all listeners.
pub(super) fn accept_loop(shared: &Arc<Shared>, listeners: &[Bound], waker: &Waker) {
    let mut spare = File::open("/dev/null").ok();
    loop {
        let mut fds: Vec<_> =
            listeners.iter().map(|l| PollFd::new(&l.listener, PollFlags::IN)).collect();
        fds.push(PollFd::new(waker, PollFlags::IN));
        // A signal in between is just another look.
        let _ = poll(&mut fds, None);
        waker.clear();
        if shared.is_stopping() {
            return;
        }
        let ready: Vec<_> = fds.iter().map(|f| !f.revents().is_empty()).collect();
        let mut short = false;
        for (bound, _) in listeners.iter().zip(ready).filter(|(_, ready)| *ready) {
            short |= accept_some(shared, bound, &mut spare);
        }
        if short {
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
            Err(e) if e.kind() == ErrorKind::WouldBlock => return false,
            Err(e) if matches!(e.kind(), ErrorKind::Interrupted | ErrorKind::ConnectionAborted) => {
            }
            Err(e) => {
                count(&shared.counters.accept_errors);
                if is_short_of_descriptors(&e) {
                    // One descriptor is kept for this: the peer is told instead of being left to hang.
                    *spare = None;
                    if let Ok((tcp, _)) = bound.listener.accept() {
                        refuse_bare(tcp);
                    }
                    *spare = File::open("/dev/null").ok();
                }
                return true;
            }
        }
    }
    false
}

fn dispatch(shared: &Arc<Shared>, role: Role, tcp: TcpStream, peer: SocketAddr) {
    if tcp.set_nonblocking(true).is_err() {
        return;
    }
    let slot = Slot { shared: Arc::clone(shared), health: role == Role::Health };
    let bound =
        if slot.health { limits::METRICS_CONNECTIONS } else { shared.config.max_connections };
    let over = slot.counter().fetch_add(1, Ordering::AcqRel) >= bound;
    let stranger =
        if slot.health { None } else { shared.strangers.enter(peer.ip().to_canonical()) };
    if over || (stranger.is_none() && !slot.health) {
        count(&shared.counters.refused);
        if role != Role::Tls {
            refuse_bare(tcp);
        }
        return;
    }
    let builder = thread::Builder::new().name("castkeep-conn".into()).stack_size(CONNECTION_STACK);
    let spawned = builder.spawn(move || {
        let shared = Arc::clone(&slot.shared);
        match stranger {
            None => metrics::serve(&shared, tcp),
            Some(stranger) => {
                count(&shared.counters.connections);
                connection::serve(&shared, tcp, peer, role == Role::Tls, stranger);
            }
        }
        drop(slot);
    });
    if spawned.is_err() {
        // The closure, and with it socket and places, is gone: the peer sees a close.
        count(&shared.counters.refused);
    }
}

/// A place within the bound.
struct Slot {
    shared: Arc<Shared>,
    health: bool,
}

impl Slot {
    fn counter(&self) -> &AtomicUsize {
        let counters = &self.shared.counters;
        if self.health { &counters.metrics_open } else { &counters.open }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.counter().fetch_sub(1, Ordering::AcqRel);
    }
}

const ACCEPTS_A_ROUND: usize = 64;
const ACCEPT_PAUSE: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };
