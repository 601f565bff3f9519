//! One connection to a recorder: TCP, Unix socket, TLS over either, or one of the host's. Never blocks and never raises SIGPIPE.

#[cfg(feature = "tls")]
use alloc::boxed::Box;
use alloc::string::String;
#[cfg(feature = "tls")]
use std::io::{self, Read, Write};

use super::config::RecorderAddr;
use super::host::{HostLink, Io, LinkWants};
use super::sys::{self, Fd, Wants};
use crate::error::{Error, Link};
use crate::space;

/// How far a connection has come.
pub(super) struct Transport {
    kind: Kind,
    connecting: bool,
    #[cfg(feature = "tls")]
    tls: Option<Box<rustls::ClientConnection>>,
    /// Why TLS failed, for people.
    #[cfg(feature = "tls")]
    tls_trouble: Option<rustls::Error>,
}

enum Kind {
    Socket(Socket),
    /// A number of the host's, 0 until it has one, and whom it is connected to.
    Host(usize, String),
}

/// The socket alone: `Read` and `Write` for rustls.
struct Socket(Fd);

/// The host's connections, when it has any.
pub(super) type Links<'a> = Option<&'a dyn HostLink>;

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
        let (fd, done) = sys::connect(&to.endpoint)?;
        Self::over(fd, !done, to, http2)
    }

    /// Over a socket that the host brings.
    pub(super) fn over(
        fd: Fd,
        connecting: bool,
        to: &RecorderAddr,
        http2: bool,
    ) -> Result<Self, Error> {
        #[cfg(not(feature = "tls"))]
        let _ = (http2, to);
        Ok(Self {
            kind: Kind::Socket(Socket(fd)),
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

    /// A connection of the host's.
    pub(super) fn hosted(to: &RecorderAddr) -> Result<Self, Error> {
        Ok(Self {
            kind: Kind::Host(0, space::string(&to.address)?),
            connecting: true,
            #[cfg(feature = "tls")]
            tls: None,
            #[cfg(feature = "tls")]
            tls_trouble: None,
        })
    }

    pub(super) const fn is_hosted(&self) -> bool {
        matches!(self.kind, Kind::Host(..))
    }

    /// The socket; none for connections of the host's.
    #[cfg(feature = "client")]
    pub(super) fn socket(&self) -> Option<std::os::fd::BorrowedFd<'_>> {
        match &self.kind {
            Kind::Socket(socket) => Some(std::os::fd::AsFd::as_fd(&socket.0)),
            Kind::Host(..) => None,
        }
    }

    /// What to wait for; `more` says that the caller has bytes to send.
    pub(super) fn wants(&self, more: bool, links: Links<'_>) -> LinkWants {
        let socket = match (&self.kind, links) {
            (Kind::Socket(socket), _) => socket,
            (Kind::Host(link, _), Some(links)) => return links.wants(*link, more),
            (Kind::Host(..), None) => return LinkWants { fd: -1, read: false, write: false },
        };
        let wants = self.socket_wants(more);
        LinkWants { fd: socket.0.raw(), read: wants.read, write: wants.write }
    }

    pub(super) fn socket_wants(&self, more: bool) -> Wants {
        if self.connecting {
            return Wants { read: false, write: true };
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            let write = tls.wants_write() || (more && !tls.is_handshaking());
            return Wants { read: true, write };
        }
        Wants { read: true, write: more }
    }

    /// Goes on with connecting and the TLS handshake; whether bytes can be sent now.
    pub(super) fn establish(&mut self, links: Links<'_>) -> Result<bool, Error> {
        let socket = match (&mut self.kind, links) {
            (Kind::Socket(socket), _) => socket,
            (Kind::Host(link, to), Some(links)) => {
                return match links.start(to, link) {
                    Io::Done(_) => {
                        self.connecting = false;
                        Ok(true)
                    }
                    Io::Again => Ok(false),
                    Io::End | Io::Failed => Err(Error::Link(Link::Unreachable)),
                };
            }
            (Kind::Host(..), None) => return Err(Error::Bug),
        };
        if self.connecting {
            self.connecting = !sys::is_connected(&socket.0)?;
            if self.connecting {
                return Ok(false);
            }
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &mut self.tls {
            while tls.is_handshaking() {
                if tls.wants_write() {
                    match tls.write_tls(socket) {
                        Ok(_) => continue,
                        Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                        Err(e) => return Err(io_failure(&e)),
                    }
                }
                match tls.read_tls(socket) {
                    Ok(0) => {
                        let text = "closed in the TLS handshake; does the recorder speak TLS on this port?";
                        self.tls_trouble = Some(rustls::Error::General(text.to_owned()));
                        return Err(Error::Link(Link::Closed));
                    }
                    Ok(_) => {
                        if let Err(why) = tls.process_new_packets() {
                            self.tls_trouble = Some(why);
                            // The alert tells the recorder's log why.
                            let _ = tls.write_tls(socket);
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

    /// Reads what is there.
    pub(super) fn read(&mut self, buf: &mut [u8], links: Links<'_>) -> Result<Got, Error> {
        let socket = match (&mut self.kind, links) {
            (Kind::Socket(socket), _) => socket,
            (Kind::Host(link, _), Some(links)) => {
                return match links.read(*link, buf) {
                    Io::Done(n) if n > 0 && n <= buf.len() => Ok(Got::Bytes(n)),
                    Io::Again => Ok(Got::Nothing),
                    Io::End => Ok(Got::Eof),
                    Io::Done(_) | Io::Failed => Err(Error::Link(Link::Reset)),
                };
            }
            (Kind::Host(..), None) => return Err(Error::Bug),
        };
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
                match tls.read_tls(socket) {
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
                            let _ = tls.write_tls(socket);
                            break Err(Error::Link(Link::Tls));
                        }
                    }
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break Ok(Got::Nothing),
                    Err(e) => break Err(io_failure(&e)),
                }
            };
        }
        match sys::recv(&socket.0, buf) {
            Ok(0) => Ok(Got::Eof),
            Ok(n) => Ok(Got::Bytes(n)),
            Err(why) if why.is_later() => Ok(Got::Nothing),
            Err(why) => Err(why.into()),
        }
    }

    /// Sends a prefix of `buf`; 0 when the socket takes nothing now.
    #[cfg_attr(not(feature = "tls"), allow(clippy::needless_pass_by_ref_mut))]
    pub(super) fn write(&mut self, buf: &[u8], links: Links<'_>) -> Result<usize, Error> {
        let socket = match (&self.kind, links) {
            (Kind::Socket(socket), _) => socket,
            (Kind::Host(link, _), Some(links)) => {
                return match links.write(*link, buf) {
                    Io::Done(n) if n <= buf.len() => Ok(n),
                    Io::Again => Ok(0),
                    Io::Done(_) | Io::End | Io::Failed => Err(Error::Link(Link::Reset)),
                };
            }
            (Kind::Host(..), None) => return Err(Error::Bug),
        };
        #[cfg(feature = "tls")]
        if self.tls.is_some() {
            self.flush()?;
            let Some(tls) = &mut self.tls else { return Ok(0) };
            // The buffer of rustls is bounded (`Tls::connection`), so a full one takes nothing.
            let taken = tls.writer().write(buf).map_err(|e| io_failure(&e))?;
            self.flush()?;
            return Ok(taken);
        }
        match sys::send(&socket.0, buf) {
            Ok(n) => Ok(n),
            Err(why) if why.is_later() => Ok(0),
            Err(why) => Err(why.into()),
        }
    }

    /// Sends what TLS holds.
    #[cfg_attr(not(feature = "tls"), allow(clippy::needless_pass_by_ref_mut))]
    pub(super) fn flush(&mut self) -> Result<(), Error> {
        #[cfg(feature = "tls")]
        if let (Some(tls), Kind::Socket(socket)) = (&mut self.tls, &mut self.kind) {
            while tls.wants_write() {
                match tls.write_tls(socket) {
                    Ok(_) => {}
                    Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                    Err(e) => return Err(io_failure(&e)),
                }
            }
        }
        Ok(())
    }

    /// What to tell about TLS when the connection failed by it.
    #[cfg(feature = "tls")]
    pub(super) fn tls_trouble(&self) -> Option<String> {
        self.tls_trouble.as_ref().map(super::tls::explain)
    }

    /// Resets the connection, so that the peer cannot take it for an orderly end.
    pub(super) fn reset(self, links: Links<'_>) {
        match &self.kind {
            Kind::Socket(socket) => sys::reset_on_close(&socket.0),
            Kind::Host(..) => self.end(links, true),
        }
    }

    /// Closes the connection as it stands.
    pub(super) fn end(self, links: Links<'_>, abort: bool) {
        match (self.kind, links) {
            (Kind::Host(link, _), Some(links)) if link != 0 => links.close(link, abort),
            _ => {}
        }
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
        if let Kind::Socket(socket) = &self.kind {
            sys::shut(&socket.0);
        }
    }
}

#[cfg(feature = "tls")]
impl Read for Socket {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        sys::recv(&self.0, buf).map_err(|why| io::Error::from_raw_os_error(why.raw()))
    }
}

#[cfg(feature = "tls")]
impl Write for Socket {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        sys::send(&self.0, buf).map_err(|why| io::Error::from_raw_os_error(why.raw()))
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(feature = "tls")]
fn io_failure(e: &io::Error) -> Error {
    match e.raw_os_error() {
        Some(number) => sys::Errno::from_raw(number).into(),
        None => Error::Link(Link::Tls),
    }
}
