//! Where messages of a client go.

#[cfg(feature = "client")]
use core::fmt;

use crate::session::State;

/// How much a message matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Something failed for good: a session is refused, ended or incomplete.
    Error,
    /// A recorder was lost or could not be used.
    Warn,
    /// A session began, moved or ended.
    Info,
    /// Each attempt.
    Debug,
}

impl Level {
    /// How much it matters that a session is there now.
    pub(super) const fn of(state: State) -> Self {
        match state {
            State::SessionRejected | State::SessionTerminated | State::Incomplete => Self::Error,
            State::ConnectionLost | State::ContinueUnrecorded => Self::Warn,
            _ => Self::Debug,
        }
    }
}

#[cfg(feature = "client")]
/// Takes the messages of a client. Called by the worker and by callers of the client, under no lock; must not block and must
/// not call into the client. Messages hold addresses, recording ids and reasons, never terminal bytes or secrets.
pub trait LogSink: Send + Sync {
    /// One message, without a line end.
    fn log(&self, level: Level, message: fmt::Arguments<'_>);
}

#[cfg(feature = "client")]
/// Throws messages away.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoLog;

#[cfg(feature = "client")]
impl LogSink for NoLog {
    fn log(&self, _: Level, _: fmt::Arguments<'_>) {}
}

#[cfg(feature = "client")]
/// Hands messages to the `log` crate, with the target `castkeep`.
#[derive(Clone, Copy, Debug, Default)]
pub struct LogFacade;

#[cfg(feature = "client")]
impl LogSink for LogFacade {
    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        let level = match level {
            Level::Error => log::Level::Error,
            Level::Warn => log::Level::Warn,
            Level::Info => log::Level::Info,
            Level::Debug => log::Level::Debug,
        };
        log::log!(target: "castkeep", level, "{message}");
    }
}

#[cfg(feature = "client")]
impl<F: Fn(Level, fmt::Arguments<'_>) + Send + Sync> LogSink for F {
    fn log(&self, level: Level, message: fmt::Arguments<'_>) {
        self(level, message);
    }
}
