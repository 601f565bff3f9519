//! The agent's socket: who may have its path, and how many may talk at once.

use std::collections::HashMap;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _,
};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use super::config::StartError;
use super::disk;
use super::serve::{self, Shared};
use super::sys;
use crate::limits;
use crate::recorder::CONNECTION_STACK;
use crate::recorder::wake::Waker;

/// The bound socket. Dropping it removes the path, when it still is ours.
#[derive(Debug)]
pub(super) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    inode: (u64, u64),
    /// Held for as long as the path is ours.
    _lock: File,
}

/// Who is at the other end of a connection to the socket.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asker {
    pub(super) uid: u32,
    pub(super) pid: i32,
}

impl Socket {
    /// Takes the path: from nobody, or from an agent that is dead.
    pub(super) fn bind(path: &Path) -> Result<Self, StartError> {
        let at = |why: &dyn std::fmt::Display| StartError::at(path, why);
        let name = path.file_name().ok_or_else(|| at(&"names no socket"))?;
        let beside = |end: &str| {
            let mut name = name.to_owned();
            name.push(end);
            path.with_file_name(name)
        };
        let new = beside("~");
        if new.as_os_str().len() > limits::SOCKET_PATH_BYTES {
            return Err(at(&format!(
                "a socket's path can have {} bytes",
                limits::SOCKET_PATH_BYTES - 1
            )));
        }
        if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
            let made = DirBuilder::new().recursive(true).mode(0o755).create(dir);
            made.map_err(|e| StartError::at(dir, e))?;
        }
        let lock = disk::lock(&beside(".lock")).map_err(|e| StartError::at(&beside(".lock"), e))?;
        let lock = lock.ok_or_else(|| at(&"another agent listens there"))?;
        match fs::symlink_metadata(path) {
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => return Err(at(&e)),
            Ok(facts) if !facts.file_type().is_socket() => {
                return Err(at(&"is there, and is no socket"));
            }
            // Ours would hold the lock: whoever answers is another program.
            Ok(_) => match UnixStream::connect(path) {
                Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                    log::info!("{}: left by an agent that is gone", path.display());
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {}
                _ => return Err(at(&"another program listens there")),
            },
        }
        // Under another name first: nobody meets a path without a listener, or one with the wrong mode.
        match fs::remove_file(&new) {
            Err(e) if e.kind() != ErrorKind::NotFound => return Err(StartError::at(&new, e)),
            _ => {}
        }
        let listener = UnixListener::bind(&new).map_err(|e| StartError::at(&new, e))?;
        let made = fs::set_permissions(&new, Permissions::from_mode(0o666))
            .and_then(|()| listener.set_nonblocking(true))
            .and_then(|()| fs::rename(&new, path))
            .and_then(|()| fs::symlink_metadata(path));
        let facts = made.map_err(|e| at(&e))?;
        let inode = (facts.dev(), facts.ino());
        Ok(Self { listener, path: path.to_owned(), inode, _lock: lock })
    }

    /// Takes connections until the agent stops.
    pub(super) fn run(&self, shared: &Arc<Shared>, stop: &Waker) {
        let seats = Arc::new(Seats::default());
        while !shared.keeper.is_stopped() {
            let mut fds = [
                PollFd::from_borrowed_fd(self.listener.as_fd(), PollFlags::IN),
                PollFd::from_borrowed_fd(stop.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(e) => {
                    log::error!("{}: {e}", self.path.display());
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
            match self.listener.accept() {
                Ok((stream, _)) => admit(shared, &seats, stream),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => {
                    log::error!("{}: {e}", self.path.display());
                    // Without descriptors the next one fails too.
                    thread::sleep(ACCEPT_PAUSE);
                }
            }
        }
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path)
            .is_ok_and(|facts| (facts.dev(), facts.ino()) == self.inode);
        if ours {
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn admit(shared: &Arc<Shared>, seats: &Arc<Seats>, stream: UnixStream) {
    let asker = match sys::peer(stream.as_fd()) {
        Ok((uid, pid)) => Asker { uid, pid },
        Err(e) => {
            log::error!("an asker without credentials is not answered: {e}");
            return;
        }
    };
    let Some(seat) = Seats::take(seats, asker.uid) else {
        refuse(stream, asker);
        return;
    };
    let shared = Arc::clone(shared);
    let started = thread::Builder::new()
        .name("castkeep-ask".into())
        .stack_size(CONNECTION_STACK)
        .spawn(move || {
            let _seat = seat;
            serve::serve(&shared, stream, asker);
        });
    if let Err(e) = started {
        log::error!("no thread for a question of uid {}: {e}", asker.uid);
    }
}

/// Says why, without waiting for anything.
fn refuse(mut stream: UnixStream, asker: Asker) {
    log::warn!("too many connections; one of uid {} pid {} is refused", asker.uid, asker.pid);
    if stream.set_nonblocking(true).is_ok() {
        let _ = stream.write_all(
            b"HTTP/1.1 429 Too Many Requests\r\nConnection: close\r\nContent-Length: 21\r\n\r\ntoo many connections\n",
        );
    }
}

/// Counts connections, in all and by user.
#[derive(Debug, Default)]
struct Seats {
    taken: Mutex<HashMap<u32, usize>>,
}

/// The right to one connection.
#[derive(Debug)]
struct Seat {
    seats: Arc<Seats>,
    uid: u32,
}

impl Seats {
    fn take(seats: &Arc<Self>, uid: u32) -> Option<Seat> {
        let mut taken = seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let all: usize = taken.values().sum();
        let of_users: usize = taken.iter().filter(|(of, _)| **of != 0).map(|(_, n)| n).sum();
        let of_user = taken.get(&uid).copied().unwrap_or(0);
        let is_free = all < limits::AGENT_CONNECTIONS
            && (uid == 0
                || (of_user < limits::AGENT_CONNECTIONS_PER_USER
                    && of_users < limits::AGENT_CONNECTIONS / 4 * 3));
        if !is_free {
            return None;
        }
        taken.insert(uid, of_user + 1);
        drop(taken);
        Some(Seat { seats: Arc::clone(seats), uid })
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(n) = taken.get_mut(&self.uid) {
            *n -= 1;
            if *n == 0 {
                taken.remove(&self.uid);
            }
        }
    }
}

const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_user_keeps_the_others_or_root_out() {
        let seats = Arc::new(Seats::default());
        let fill = |uid| std::iter::from_fn(|| Seats::take(&seats, uid)).collect::<Vec<_>>();
        let mut held = fill(1);
        assert_eq!(held.len(), limits::AGENT_CONNECTIONS_PER_USER);
        (2..100).for_each(|uid| held.extend(fill(uid)));
        assert_eq!(held.len(), limits::AGENT_CONNECTIONS / 4 * 3);
        assert_eq!(fill(0).len(), limits::AGENT_CONNECTIONS / 4, "and gives them back");
        held.clear();
        assert!(seats.taken.lock().unwrap().is_empty());
    }
}
