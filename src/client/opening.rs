//! What both drivers make of a decision. Memory that is refused is an error.

use alloc::string::String;
use alloc::vec::Vec;
use core::time::Duration;

use super::config::{Decision, Metadata, RecorderAddr};
use super::sys;
use crate::cast;
use crate::error::Error;
#[cfg(feature = "ask")]
use crate::limits;
#[cfg(feature = "ask")]
use crate::session::Ask;
use crate::session::{Config, Deadlines, OnFailure, Protocols, Recorder};
use crate::space;
use crate::time::Span;

/// The machine's part of it, and the recording's id.
pub(super) fn machine_config(
    ring_bytes: usize,
    protocols: Protocols,
    mut metadata: Metadata,
    decision: &Decision,
) -> Result<(RecordingId, Config), Error> {
    let recording = sys::random::<16>()?;
    let id = RecordingId::new(&recording);
    let (volume_bytes, refusal) = (metadata.volume_bytes, metadata.refusal.take());
    #[cfg(feature = "ask")]
    let ask = ask(decision, &metadata)?;
    let config = Config {
        header: header(metadata, &id)?,
        recording,
        resume_secret: sys::random::<16>()?,
        ring_bytes,
        recorders: recorders(&decision.recorders)?,
        on_failure: OnFailure {
            reject_message: copy(decision.reject_message.as_deref())?,
            terminate_message: copy(decision.terminate_message.as_deref())?,
        },
        release: decision.release,
        protocols,
        deadlines: deadlines(decision),
        record_input: decision.record_input,
        stock_with_release_commit: decision.stock_with_release_commit,
        volume_bytes,
        refusal,
        #[cfg(feature = "ask")]
        ask,
        jitter_seed: u64::from_ne_bytes(sys::random::<8>()?),
    };
    Ok((id, config))
}

/// 32 hexadecimal digits.
#[derive(Clone, Copy)]
pub(super) struct RecordingId([u8; 32]);

impl RecordingId {
    fn new(bytes: &[u8; 16]) -> Self {
        let digit = |value: u8| if value < 10 { b'0' | value } else { b'W'.wrapping_add(value) };
        let mut text = [0; 32];
        for (to, byte) in text.chunks_exact_mut(2).zip(bytes) {
            if let [high, low] = to {
                *high = digit(byte >> 4);
                *low = digit(byte & 15);
            }
        }
        Self(text)
    }

    pub(super) fn as_str(&self) -> &str {
        core::str::from_utf8(&self.0).unwrap_or("")
    }
}

fn copy(text: Option<&str>) -> Result<Option<String>, Error> {
    text.map(space::string).transpose()
}

fn header(metadata: Metadata, id: &RecordingId) -> Result<cast::Header, Error> {
    let or =
        |text: String, default| if text.is_empty() { space::string(default) } else { Ok(text) };
    let kind = if metadata.command.is_some() { "exec" } else { "shell" };
    let (width, height) = metadata.size;
    Ok(cast::Header {
        width,
        height,
        timestamp: sys::wall_clock(),
        command: metadata.command,
        src_node: metadata.src_node,
        src_node_id: metadata.src_node_id,
        src_node_tags: metadata.src_node_tags,
        src_node_user_id: metadata.src_node_user_id,
        src_node_user: metadata.src_node_user,
        env: metadata.env,
        ssh_user: metadata.ssh_user,
        local_user: metadata.local_user,
        connection_id: metadata.connection_id,
        kubernetes: metadata.kubernetes,
        castkeep: Some(cast::Castkeep {
            recording: space::string(id.as_str())?,
            node: metadata.node,
            kind: or(metadata.kind, kind)?,
            client: or(metadata.program, concat!("castkeep/", env!("CARGO_PKG_VERSION")))?,
            source_by: None,
        }),
        ..cast::Header::default()
    })
}

/// What is asked, with what the session is known by where the host did not say it. Who the source is has to be said: what stands
/// in a recording is for people.
#[cfg(feature = "ask")]
fn ask(decision: &Decision, metadata: &Metadata) -> Result<Option<Ask>, Error> {
    let Some(source) = &decision.policy else { return Ok(None) };
    let mut question = metadata.question.as_ref().unwrap_or(&source.question).copy()?;
    let kind = if metadata.command.is_some() { "exec" } else { "shell" };
    for (field, known) in [
        (&mut question.ssh_user, metadata.ssh_user.as_str()),
        (&mut question.local_user, &metadata.local_user),
        (&mut question.connection_id, &metadata.connection_id),
        (&mut question.kind, if metadata.kind.is_empty() { kind } else { &metadata.kind }),
    ] {
        if field.is_empty() {
            *field = space::string(known)?;
        }
    }
    Ok(Some(Ask {
        question,
        authority: space::string(&source.at.authority)?,
        token: copy(source.token.as_deref())?,
        wait: source.wait.map_or(limits::POLICY_WAIT, span),
        unreachable: copy(source.unreachable.as_deref())?,
    }))
}

/// Addresses without a group get numbers from the top, which people do not choose.
fn recorders(addrs: &[RecorderAddr]) -> Result<Vec<Recorder>, Error> {
    let own = (0..=u16::MAX).rev().filter(|n| !addrs.iter().any(|a| a.group == Some(*n)));
    let mut all = Vec::new();
    for (addr, own) in addrs.iter().zip(own) {
        let authority = space::string(&addr.authority)?;
        let group = addr.group.unwrap_or(own);
        space::push(&mut all, Recorder { group, authority, tls: addr.is_tls() })?;
    }
    Ok(all)
}

fn deadlines(decision: &Decision) -> Deadlines {
    let mut deadlines = Deadlines::default();
    for (field, wish) in [
        (&mut deadlines.resume_grace, decision.grace),
        (&mut deadlines.stall_limit, decision.stall_limit),
        (&mut deadlines.start, decision.start_limit),
    ] {
        if let Some(wish) = wish {
            *field = span(wish);
        }
    }
    deadlines
}

/// Microseconds of a duration. Whoever waits for longer than 500,000 years waits for ever.
pub(super) fn span(of: Duration) -> Span {
    let us = of.as_secs().saturating_mul(1_000_000).saturating_add(of.subsec_micros().into());
    Span(us)
}
