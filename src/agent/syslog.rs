//! One line to the system log (RFC 3164), for what nobody may miss.

use std::io;
use std::os::unix::net::UnixDatagram;
use std::path::Path;

use crate::cast::text::escape_control;
use crate::limits;
use crate::recorder::config::duration;

/// Writes at `auth.alert`. No time stamp: every system log puts its own, and takes ours only in local time.
pub(super) fn alert(socket: &Path, text: &str) -> io::Result<()> {
    let log = UnixDatagram::unbound()?;
    log.set_write_timeout(Some(duration(limits::SYSLOG_TIME)))?;
    log.connect(socket)?;
    let text = escape_control(text);
    let text = text.get(..text.floor_char_boundary(LINE_BYTES)).unwrap_or_default();
    log.send(format!("<{AUTH_ALERT}>castkeep[{}]: {text}", std::process::id()).as_bytes())?;
    Ok(())
}

/// Facility 4 (security), severity 1 (action must be taken at once).
const AUTH_ALERT: u8 = 4 * 8 + 1;
/// What RFC 3164 lets through is 1,024 bytes, header included.
const LINE_BYTES: usize = 960;
