//! What a host brings along: where messages go, and connections of its own.

use core::ffi::c_int;
use core::fmt;

use super::Level;

/// The surroundings of a [`Polled`](super::Polled) driver. Its functions are called out of the driver's, must not block, and must
/// not call into the driver.
pub trait Host {
    /// One message, without a line end: addresses, recording ids and reasons, never terminal bytes or secrets.
    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let _ = (level, message);
    }

    /// A recorder is to be connected to; `to` is its address, or its name, as it was given. With [`Dial::Pending`] the answer
    /// follows under this ticket, see [`Polled::dialed`](super::Polled::dialed).
    fn dial(&self, ticket: u64, to: &str) -> Dial {
        let _ = (ticket, to);
        Dial::Own
    }

    /// Connections that are the host's altogether. When there are, `dial` is not asked.
    fn links(&self) -> Option<&dyn HostLink> {
        None
    }
}

/// Who connects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dial {
    /// The driver, by address.
    Own,
    /// The host did: a stream socket, which may still be connecting. It is the driver's from now on; it must not block.
    Connected(c_int),
    /// The host does, and says so later.
    Pending,
    /// Nobody can: the next recorder is tried.
    Failed,
}

/// Connections by a library of the host's, such as its TLS. A connection is a number that `start` chooses.
pub trait HostLink {
    /// Connects to `to`, handshake included. `link` is 0 at first; with [`Io::Again`] it is called again with what it left there.
    /// `Done` for a connection that bytes can be sent over.
    fn start(&self, to: &str, link: &mut usize) -> Io;
    /// Reads what is there.
    fn read(&self, link: usize, buf: &mut [u8]) -> Io;
    /// Takes a prefix of `bytes`.
    fn write(&self, link: usize, bytes: &[u8]) -> Io;
    /// What the connection is waiting for; `more` says that there are bytes to write.
    fn wants(&self, link: usize, more: bool) -> LinkWants;
    /// Ends it, and frees what it has. `abort`: so that the peer cannot take it for an orderly end.
    fn close(&self, link: usize, abort: bool);
}

/// What an operation of a [`HostLink`] came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Io {
    /// So many bytes, at least 1; any number for `start`.
    Done(usize),
    /// Not now: once more when what [`HostLink::wants`] says has come.
    Again,
    /// The peer has sent everything, in order.
    End,
    /// The connection is lost.
    Failed,
}

/// What a connection of the host's waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkWants {
    /// The descriptor; -1 for none, then it is asked again in a moment.
    pub fd: c_int,
    /// Readable.
    pub read: bool,
    /// Writable.
    pub write: bool,
}

/// The surroundings of a Rust program: a log sink.
#[cfg(feature = "client")]
pub struct Surroundings {
    pub(super) log: alloc::sync::Arc<dyn super::LogSink>,
}

/// The surroundings of nobody.
#[cfg(not(feature = "client"))]
pub struct Surroundings {}

impl fmt::Debug for Surroundings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Surroundings")
    }
}

impl Host for Surroundings {
    #[cfg(feature = "client")]
    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        self.log.log(level, message);
    }
}
