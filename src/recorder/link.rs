//! The byte stream under a connection: a socket, or TLS on it. Never blocks.

use std::io::{self, ErrorKind, Read, Write};
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection};

/// What a read gave.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Got {
    /// So many bytes.
    Bytes(usize),
    /// Nothing now.
    Nothing,
    /// The peer closed its side.
    Eof,
    /// The connection is lost.
    Lost,
}

#[derive(Debug)]
pub(crate) enum Link {
    Clear(TcpStream),
    Tls(Box<TlsLink>),
}

#[derive(Debug)]
pub(crate) struct TlsLink {
    tcp: TcpStream,
    tls: ServerConnection,
    eof: bool,
}

impl Link {
    /// The socket is non-blocking already.
    pub(crate) fn new(
        tcp: TcpStream,
        tls: Option<Arc<ServerConfig>>,
    ) -> Result<Self, rustls::Error> {
        let Some(config) = tls else { return Ok(Self::Clear(tcp)) };
        let mut tls = ServerConnection::new(config)?;
        // Our answers are small; past this the machine waits.
        tls.set_buffer_limit(Some(TLS_OUT_BYTES));
        Ok(Self::Tls(Box::new(TlsLink { tcp, tls, eof: false })))
    }

    pub(crate) fn tcp(&self) -> &TcpStream {
        match self {
            Self::Clear(tcp) => tcp,
            Self::Tls(link) => &link.tcp,
        }
    }

    /// Goes on with the handshake. Ok(true): it is done, or there is none.
    pub(crate) fn handshake(&mut self) -> Result<bool, String> {
        let Self::Tls(link) = self else { return Ok(true) };
        while link.tls.is_handshaking() {
            if link.tls.wants_write() {
                match link.flush() {
                    Ok(true) => continue,
                    Ok(false) => return Ok(false),
                    Err(e) => return Err(e.to_string()),
                }
            }
            match link.read_more() {
                Ok(true) => {}
                Ok(false) if link.eof => return Err("closed by the peer".into()),
                Ok(false) => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        let _ = link.flush();
        Ok(true)
    }

    /// What TLS agreed on.
    pub(crate) fn tls(&self) -> Option<&ServerConnection> {
        match self {
            Self::Clear(_) => None,
            Self::Tls(link) => Some(&link.tls),
        }
    }

    pub(crate) fn read(&mut self, buf: &mut [u8]) -> Got {
        match self {
            Self::Clear(tcp) => read_tcp(tcp, buf),
            Self::Tls(link) => link.read(buf),
        }
    }

    /// How many bytes were taken; 0 when none can be taken now.
    pub(crate) fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Clear(tcp) => loop {
                match tcp.write(buf) {
                    Err(e) if e.kind() == ErrorKind::Interrupted => {}
                    Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(0),
                    other => return other,
                }
            },
            Self::Tls(link) => {
                if !link.flush()? {
                    return Ok(0);
                }
                let n = link.tls.writer().write(buf)?;
                link.flush()?;
                Ok(n)
            }
        }
    }

    /// Writes what TLS holds. Ok(true) when nothing is left.
    pub(crate) fn flush(&mut self) -> io::Result<bool> {
        match self {
            Self::Clear(_) => Ok(true),
            Self::Tls(link) => link.flush(),
        }
    }

    /// Whether TLS holds bytes that the socket did not take.
    pub(crate) fn wants_write(&self) -> bool {
        match self {
            Self::Clear(_) => false,
            Self::Tls(link) => link.tls.wants_write(),
        }
    }

    /// Says that nothing more comes from here.
    pub(crate) fn close_write(&mut self) {
        if let Self::Tls(link) = self {
            link.tls.send_close_notify();
            let _ = link.flush();
        }
        let _ = self.tcp().shutdown(std::net::Shutdown::Write);
    }
}

impl AsFd for Link {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.tcp().as_fd()
    }
}

impl TlsLink {
    fn read(&mut self, buf: &mut [u8]) -> Got {
        loop {
            match self.tls.reader().read(buf) {
                Ok(0) => return Got::Eof,
                Ok(n) => return Got::Bytes(n),
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                // Closed without close_notify: HTTP's own framing says whether something is missing.
                Err(_) => return Got::Eof,
            }
            match self.read_more() {
                Ok(true) => {}
                Ok(false) if self.eof => return Got::Eof,
                Ok(false) => return Got::Nothing,
                Err(_) => return Got::Lost,
            }
        }
    }

    /// Reads and decrypts once. Ok(false): nothing came.
    fn read_more(&mut self) -> Result<bool, String> {
        if self.eof {
            return Ok(false);
        }
        match self.tls.read_tls(&mut self.tcp) {
            Ok(0) => {
                self.eof = true;
                return Ok(false);
            }
            Ok(_) => {}
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {
                return Ok(false);
            }
            Err(e) => return Err(e.to_string()),
        }
        match self.tls.process_new_packets() {
            Ok(_) => Ok(true),
            Err(e) => {
                // The alert tells the peer why.
                let _ = self.flush();
                Err(e.to_string())
            }
        }
    }

    fn flush(&mut self) -> io::Result<bool> {
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut self.tcp) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) if e.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }
}

fn read_tcp(tcp: &mut TcpStream, buf: &mut [u8]) -> Got {
    loop {
        return match tcp.read(buf) {
            Ok(0) => Got::Eof,
            Ok(n) => Got::Bytes(n),
            Err(e) if e.kind() == ErrorKind::Interrupted => continue,
            Err(e) if e.kind() == ErrorKind::WouldBlock => Got::Nothing,
            Err(_) => Got::Lost,
        };
    }
}

const TLS_OUT_BYTES: usize = 16 * 1024;
