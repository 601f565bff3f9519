//! The calls of `record` and `login-shell` that need `unsafe`.
#![allow(unsafe_code)]

use std::ffi::{CStr, OsStr, OsString};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::ptr;

/// Makes the child the leader of a session of its own, with its standard input as the controlling terminal.
pub(super) fn own_terminal(command: &mut Command) {
    // SAFETY: between fork and exec only async-signal-safe calls are allowed: both are plain system calls, nothing is allocated and
    // no lock is taken.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
            Ok(())
        });
    }
}

/// Makes the child the leader of a session without a terminal.
pub(super) fn no_terminal(command: &mut Command) {
    // SAFETY: as above.
    unsafe {
        command.pre_exec(|| {
            rustix::process::setsid()?;
            Ok(())
        });
    }
}

/// Takes variables out of the environment of this process, and gives those that were there.
pub(super) fn take_variables(names: &[&str]) -> Vec<(OsString, OsString)> {
    let taken = names.iter().filter_map(|name| Some((name.into(), std::env::var_os(name)?)));
    let taken = taken.collect();
    for name in names {
        // SAFETY: called by the one thread that there is, before any other is started.
        unsafe { std::env::remove_var(name) };
    }
    taken
}

/// Name and home of a user, by what the system's user database says (the environment belongs to the user).
pub(super) fn user(uid: u32) -> io::Result<Option<User>> {
    let mut buffer = vec![0; 1024];
    loop {
        // SAFETY: a passwd of zeros is a valid value (pointers and numbers); getpwuid_r fills it.
        let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
        let mut found: *mut libc::passwd = ptr::null_mut();
        // SAFETY: all pointers are to live memory of the right type, and the length is that of the buffer.
        let failed = unsafe {
            libc::getpwuid_r(uid, &mut entry, buffer.as_mut_ptr(), buffer.len(), &mut found)
        };
        match failed {
            0 if found.is_null() => return Ok(None),
            0 => {
                let text = |field: *const libc::c_char| {
                    if field.is_null() {
                        return OsString::new();
                    }
                    // SAFETY: not null, and on success every field points to a terminated string in `buffer`, which lives.
                    let text = unsafe { CStr::from_ptr(field) };
                    OsStr::from_bytes(text.to_bytes()).to_owned()
                };
                return Ok(Some(User { name: text(entry.pw_name), home: text(entry.pw_dir) }));
            }
            libc::ERANGE if buffer.len() < 1 << 20 => buffer.resize(buffer.len() * 2, 0),
            libc::EINTR => {}
            code => return Err(io::Error::from_raw_os_error(code)),
        }
    }
}

/// See [`user`].
#[derive(Debug)]
pub(super) struct User {
    pub(super) name: OsString,
    pub(super) home: OsString,
}
