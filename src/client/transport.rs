//! One connection to a recorder: TCP, Unix socket, TLS over either. Never blocks and never raises SIGPIPE.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::PollFlags;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recv,
    send, socket_with, sockopt,
};

use super::config::{Endpoint, RecorderAddr};
use crate::error::{Error, Link};
use crate::limits;

/// A socket and how far it has come.
pub(super) struct Transport {
    socket: Socket,
    connecting: bool,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ClientConnection>>,
    /// Why TLS failed, for people.
    #[cfg(feature = "tls")]
    tls_trouble: Option<rustls::Error>,
}

/// The socket alone: `Read` and `Write` for rustls, with `MSG_NOSIGNAL`.
struct Socket(OwnedFd);

/// What a read gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Got {
    /// So many bytes.
    Bytes(usize),
    /// The peer closed its direction.
    Eof,
    /// Nothing now.
    Nothing,
}

impl Transport {
    /// Begins to connect.
    pub(super) fn connect(to: &RecorderAddr, http2: bool) -> Result<Self, Error> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let open = |family| socket_with(family, SocketType::STREAM, flags, None).map_err(failure);
        let (fd, done) = match &to.endpoint {
            Endpoint::Tcp(addr) => {
                let family =
                    if addr.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
                let fd = open(family)?;
                // Options are wishes: a kernel without one of them still makes a connection.
                let _ = sockopt::set_tcp_nodelay(&fd, true);
                let _ = sockopt::set_socket_keepalive(&fd, true);
                let ms = u32::try_from(limits::TCP_USER_TIMEOUT.0 / 1_000).unwrap_or(u32::MAX);
                let _ = sockopt::set_tcp_user_timeout(&fd, ms);
                let done = connect(&fd, addr);
                (fd, done)
            }
            Endpoint::Unix(path) => {
                let fd = open(AddressFamily::UNIX)?;
                let addr = SocketAddrUnix::new(path.as_path()).map_err(failure)?;
                let done = connect(&fd, &addr);
                (fd, done)
            }
        };
        let connecting = match done {
            Ok(()) => false,
            Err(Errno::INPROGRESS) => true,
            Err(why) => return Err(failure(why)),
        };
        #[cfg(not(feature = "tls"))]
        let _ = http2;
        Ok(Self {
            socket: Socket(fd),
            connecting,
            #[cfg(feature = "tls")]
            tls: match &to.tls {
                Some((tls, name)) => Some(Box::new(tls.connection(name, http2)?)),
                None => None,
            },
            #[cfg(feature = "tls")]
            tls_trouble: None,
        })
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.0.as_fd()
    }

    /// What to wait for; `more` says that the caller has bytes to send.
    pub(super) fn wants(&self, more: bool) -> PollFlags {
        if self.connecting {
            return PollFlags::OUT;
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let mut flags = PollFlags::IN;
            if tls.wants_write() || (more && !tls.is_handshaking()) {
                flags |= PollFlags::OUT;
            }
            return flags;
        }
        if more { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
    }

    /// Goes on with connecting and the TLS handshake; whether bytes can be sent now.
    pub(super) fn establish(&mut self) -> Result<bool, Error> {
        if self.connecting {
            match sockopt::socket_error(&self.socket.0).map_err(failure)? {
                Ok(()) => self.connecting = !self.is_connected()?,
                Err(why) => return Err(failure(why)),
            }
            if self.connecting {
                return Ok(false);
            }
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            while tls.is_handshaking() {
                if tls.wants_write() {
                    match tls.write_tls(&mut self.socket) {
                        Ok(_) => continue,
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                        Err(e) => return Err(io_failure(&e)),
                    }
                }
                match tls.read_tls(&mut self.socket) {
                    Ok(0) => {
                        let text = "closed in the TLS handshake; does the recorder speak TLS on this port?";
                        self.tls_trouble = Some(rustls::Error::General(text.to_owned()));
                        return Err(Error::Link(Link::Closed));
                    }
                    Ok(_) => {
                        if let Err(why) = tls.process_new_packets() {
                            self.tls_trouble = Some(why);
                            // The alert tells the recorder's log why.
                            let _ = tls.write_tls(&mut self.socket);
                            return Err(Error::Link(Link::Tls));
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                    Err(e) => return Err(io_failure(&e)),
                }
            }
            // The last flight may still be inside.
            self.flush()?;
        }
        Ok(true)
    }

    /// SO_ERROR is 0 both before and after a connect in progress ends; only the peer's name tells.
    fn is_connected(&self) -> Result<bool, Error> {
        match rustix::net::getpeername(&self.socket.0) {
            Ok(_) => Ok(true),
            Err(Errno::NOTCONN) => Ok(false),
            Err(why) => Err(failure(why)),
        }
    }

    /// Reads what is there.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> Result<Got, Error> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            return loop {
                match tls.reader().read(buf) {
                    Ok(0) => break Ok(Got::Eof),
                    Ok(n) => break Ok(Got::Bytes(n)),
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                    // The connection ended without close_notify: a cut, not an end.
                    Err(_) => break Err(Error::Link(Link::Closed)),
                }
                match tls.read_tls(&mut self.socket) {
                    Ok(0) => {
                        if let Err(why) = tls.process_new_packets() {
                            self.tls_trouble = Some(why);
                            break Err(Error::Link(Link::Tls));
                        }
                        // Once more: the reader now knows whether this was an orderly end.
                        break match tls.reader().read(buf) {
                            Ok(0) => Ok(Got::Eof),
                            Ok(n) => Ok(Got::Bytes(n)),
                            Err(_) => Err(Error::Link(Link::Closed)),
                        };
                    }
                    Ok(_) => {
                        if let Err(why) = tls.process_new_packets() {
                            self.tls_trouble = Some(why);
                            let _ = tls.write_tls(&mut self.socket);
                            break Err(Error::Link(Link::Tls));
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(Got::Nothing),
                    Err(e) => break Err(io_failure(&e)),
                }
            };
        }
        match self.socket.read(buf) {
            Ok(0) => Ok(Got::Eof),
            Ok(n) => Ok(Got::Bytes(n)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(Got::Nothing),
            Err(e) => Err(io_failure(&e)),
        }
    }

    /// Sends a prefix of `buf`; 0 when the socket takes nothing now.
    pub(super) fn write(&mut self, buf: &[u8]) -> Result<usize, Error> {
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            self.flush()?;
            let Some(tls) = &mut self.tls else { return Ok(0) };
            // The buffer of rustls is bounded (`Tls::connection`), so a full one takes nothing.
            let taken = tls.writer().write(buf).map_err(|e| io_failure(&e))?;
            self.flush()?;
            return Ok(taken);
        }
        match self.socket.write(buf) {
            Ok(n) => Ok(n),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => Ok(0),
            Err(e) => Err(io_failure(&e)),
        }
    }

    /// Sends what TLS holds.
    #[cfg_attr(not(feature = "tls"), allow(clippy::needless_pass_by_ref_mut))]
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            while tls.wants_write() {
                match tls.write_tls(&mut self.socket) {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(io_failure(&e)),
                }
            }
        }
        Ok(())
    }

    /// What to tell about TLS when the connection failed by it.
    pub(super) fn tls_trouble(&self) -> Option<String> {
        #[cfg(feature = "tls")]
        if let Some(why) = &self.tls_trouble {
            return Some(super::tls::explain(why));
        }
        None
    }

    /// Resets the connection, so that the peer cannot take it for an orderly end.
    pub(super) fn reset(self) {
        let _ = sockopt::set_socket_linger(&self.socket.0, Some(Duration::ZERO));
    }

    /// Says that nothing more is sent. The peer's end is still to be read: closing with bytes unread would reset the connection
    /// and take back what is on its way.
    #[cfg_attr(not(feature = "tls"), allow(clippy::needless_pass_by_ref_mut))]
    pub(super) fn finish(&mut self) {
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            tls.send_close_notify();
            let _ = self.flush();
        }
        let _ = rustix::net::shutdown(&self.socket.0, rustix::net::Shutdown::Write);
    }
}

impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match recv(&self.0, &mut *buf, RecvFlags::empty()) {
                Ok((n, _)) => return Ok(n),
                Err(Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
        }
    }
}

impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        loop {
            match send(&self.0, buf, SendFlags::NOSIGNAL) {
                Ok(n) => return Ok(n),
                Err(Errno::INTR) => {}
                Err(why) => return Err(why.into()),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn io_failure(e: &io::Error) -> Error {
    Errno::from_io_error(e).map_or(Error::Link(Link::Tls), failure)
}

fn failure(why: Errno) -> Error {
    Error::Link(match why {
        Errno::CONNRESET | Errno::PIPE | Errno::TIMEDOUT => Link::Reset,
        _ => Link::Unreachable,
    })
}
