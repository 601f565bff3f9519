//! The two calls of the agent that need `unsafe`.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

/// The user and the process at the other end of a Unix socket, as they were when it connected.
///
/// By hand: a process that this one cannot see (another namespace) has the number 0, which rustix's type cannot hold.
pub(super) fn peer(socket: BorrowedFd<'_>) -> io::Result<(u32, i32)> {
    let mut found = libc::ucred { pid: 0, uid: 0, gid: 0 };
    let mut length = libc::socklen_t::try_from(size_of_val(&found)).unwrap_or(0);
    // SAFETY: the descriptor is open for as long as it is borrowed; both pointers are ours and live through the call, and the
    // length is that of the structure, which holds nothing but integers.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEERCRED,
            ptr::from_mut(&mut found).cast(),
            &mut length,
        )
    };
    // Less than all of it would leave uid 0 where it was.
    if result != 0 || usize::try_from(length).ok() != Some(size_of_val(&found)) {
        return Err(io::Error::last_os_error());
    }
    Ok((found.uid, found.pid))
}

/// The user number of an account; None: there is none of that name.
///
/// # Blocking
///
/// As long as the name service takes. It is only asked where a rule says that the local user is the requested one.
pub(super) fn uid_of(name: &str) -> Option<u32> {
    let name = CString::new(name).ok()?;
    let mut buffer: Vec<libc::c_char> = vec![0; FIRST_BYTES];
    loop {
        // SAFETY: a passwd of zeros is a valid value (pointers and numbers); getpwnam_r fills it.
        let mut entry: libc::passwd = unsafe { mem::zeroed() };
        let mut found = ptr::null_mut();
        // SAFETY: the name ends in NUL; the three out-pointers are ours and live through the call, and the length is the
        // buffer's own. What `entry` points to afterwards is not looked at.
        let error = unsafe {
            libc::getpwnam_r(
                name.as_ptr(),
                &mut entry,
                buffer.as_mut_ptr(),
                buffer.len(),
                &mut found,
            )
        };
        if error == libc::ERANGE && buffer.len() < MOST_BYTES {
            buffer.resize(buffer.len() * 4, 0);
            continue;
        }
        return (error == 0 && !found.is_null()).then_some(entry.pw_uid);
    }
}

/// Enough for every entry that was ever seen, and where it ends.
const FIRST_BYTES: usize = 4 * 1024;
const MOST_BYTES: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd as _;
    use std::os::unix::net::UnixStream;

    #[test]
    fn root_is_there_and_nobody_else_is_root() {
        assert_eq!(uid_of("root"), Some(0));
        assert_eq!(uid_of("no-such-user-here"), None);
        assert_eq!(uid_of("a\0b"), None);
    }

    #[test]
    fn the_peer_of_a_pair_is_this_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let wanted = (rustix::process::getuid().as_raw(), std::process::id() as i32);
        assert_eq!(peer(one.as_fd()).unwrap(), wanted);
    }
}
