//! What is asked, and what is answered.
//!
//! | request | role |
//! |---|---|
//! | `GET /castkeep/1/policy?wait=SECONDS` | node |
//! | `GET /castkeep/1/policy?node=NODE` | admin |
//! | `POST`, `DELETE /castkeep/1/recorder` | recorder |
//! | `POST /castkeep/1/notify` | node |
//! | `GET /castkeep/1/events?since=NUMBER` | admin |

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::announced::Announcement;
use super::auth::{Identity, Roles};
use super::connection::{Connection, Reply, Request, Waited};
use super::events::Entry;
use super::gates::Part;
use super::keeper::{Refused, World};
use super::shared::count;
use super::view::{Event, View};
use crate::cast::text::escape_control;
use crate::http1::RequestHead;
use crate::limits;
use crate::recorder::config::span;
use crate::recorder::storage::format_time;

/// What a request shows of who it is from.
#[derive(Debug)]
pub(super) struct Caller {
    token: Option<String>,
    /// The field was there and is none of ours: no certificate makes up for it.
    strange: bool,
    certificate: Option<String>,
}

impl Caller {
    pub(super) fn from_head(head: &RequestHead<'_>, certificate: Option<String>) -> Self {
        let field = head.fields.get("authorization");
        let token = field.and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            let token = token.trim();
            let fits = (1..=limits::TOKEN_BYTES).contains(&token.len());
            (scheme.eq_ignore_ascii_case("bearer") && fits).then(|| token.to_owned())
        });
        let fields = head.fields.count("authorization");
        Self { strange: fields > usize::from(token.is_some()), token, certificate }
    }

    /// Who that is now. A token says more than a certificate: who shows a wrong one is nobody.
    pub(super) fn identify(&self, world: &World) -> Option<Identity> {
        if self.strange {
            return None;
        }
        if let Some(token) = &self.token {
            return world.tokens.by_token(token).cloned();
        }
        let name = self.certificate.as_deref()?;
        if let Some(identity) = world.tokens.by_certificate(name) {
            return Some(identity.clone());
        }
        // A node that the registry knows is itself, and records as what the registry calls it.
        let node = world.inputs.named(name)?;
        let roles = Roles { node: true, recorder: true, admin: false };
        Some(Identity { node: node.id.clone(), roles, tags: Vec::new() })
    }

    /// For the log: no token.
    pub(super) fn describe(&self) -> String {
        match (&self.token, &self.certificate) {
            _ if self.strange => "authorization that is not understood".into(),
            (Some(_), _) => "unknown token".into(),
            (None, Some(name)) => format!("certificate of `{name}`, which is no node"),
            (None, None) => "neither token nor certificate".into(),
        }
    }
}

/// Answers. None: the peer is gone.
pub(super) fn answer(c: &mut Connection, request: &Request, caller: &Caller) -> Option<Reply> {
    let wrong = |allow: &str| Some(Reply::text(405, "not that method").field("Allow", allow));
    match (request.path.as_str(), request.method.as_str()) {
        ("/castkeep/1/policy", "GET" | "HEAD") => policy(c, request, caller),
        ("/castkeep/1/policy", _) => wrong("GET, HEAD"),
        ("/castkeep/1/recorder", "POST") => {
            Some(announce(c, request, caller).unwrap_or_else(|r| r))
        }
        ("/castkeep/1/recorder", "DELETE") => Some(withdraw(c, caller).unwrap_or_else(|r| r)),
        ("/castkeep/1/recorder", _) => wrong("POST, DELETE"),
        ("/castkeep/1/notify", "POST") => Some(notify(c, request, caller).unwrap_or_else(|r| r)),
        ("/castkeep/1/notify", _) => wrong("POST"),
        ("/castkeep/1/events", "GET" | "HEAD") => {
            Some(events(c, request, caller).unwrap_or_else(|r| r))
        }
        ("/castkeep/1/events", _) => wrong("GET, HEAD"),
        _ => Some(Reply::text(
            404,
            "there are policy, recorder, notify and events below /castkeep/1/",
        )),
    }
}

/// The caller, when it has the role.
fn permit(
    c: &Connection,
    world: &World,
    caller: &Caller,
    role: fn(&Roles) -> bool,
    what: &str,
) -> Result<Identity, Reply> {
    // Again, and not as it was when the request came: a token may have been taken back since.
    let identity = caller
        .identify(world)
        .ok_or_else(|| Reply::text(401, "the token is no longer valid").closing())?;
    if role(&identity.roles) {
        return Ok(identity);
    }
    log::info!("{}: 403: {} is no {what}", c.peer, escape_control(&identity.node));
    Err(Reply::text(403, &format!("this is for a {what}, and {} is none", identity.node)))
}

/// The node's policy, at once when it is new to the caller, else when it has changed, else 304.
fn policy(c: &mut Connection, request: &Request, caller: &Caller) -> Option<Reply> {
    let wait = match request.number("wait") {
        Ok(wait) => Duration::from_secs(wait.unwrap_or(0)).min(c.shared.config.wait),
        Err(reply) => return Some(reply),
    };
    let end = Instant::now() + wait;
    let mut seen: Option<Arc<World>> = None;
    loop {
        c.attend();
        let world = c.shared.keeper.current();
        if seen.as_ref().is_none_or(|seen| !Arc::ptr_eq(seen, &world)) {
            let (view, part) = match look(c, &world, request, caller) {
                Ok(view) => view,
                Err(reply) => return Some(reply),
            };
            if !request.etag.as_deref().is_some_and(|tags| names(tags, &view.etag)) {
                count(&c.shared.counters.policies);
                let body = vec![view.head.into(), view.nodes.text, "}\n".into()];
                return Some(
                    Reply::with(200, "application/json", body)
                        .field("ETag", view.etag)
                        .holding(part),
                );
            }
            seen = Some(world);
        }
        if c.shared.is_stopping() || Instant::now() >= end {
            count(&c.shared.counters.unchanged);
            let etag = request.etag.clone().unwrap_or_default();
            let etag = etag.split(',').next().unwrap_or_default().trim().to_owned();
            return Some(Reply::empty(304).field("ETag", etag));
        }
        let shared = Arc::clone(&c.shared);
        shared.counters.waiting.fetch_add(1, Ordering::Relaxed);
        let waited = c.wait(end);
        shared.counters.waiting.fetch_sub(1, Ordering::Relaxed);
        if waited == Waited::Gone {
            return None;
        }
    }
}

/// Compiles what the caller may see, and holds the place of its bytes among those that are sent.
fn look(
    c: &Connection,
    world: &World,
    request: &Request,
    caller: &Caller,
) -> Result<(View, Part), Reply> {
    let busy = || Reply::text(503, "busy").field("Retry-After", "5");
    let name = match request.value("node") {
        None => permit(c, world, caller, |r| r.node, "node")?.node,
        Some(node) => {
            permit(c, world, caller, |r| r.admin, "admin")?;
            node.to_owned()
        }
    };
    let Some(node) = world.inputs.node(&name) else {
        return Err(Reply::text(404, &format!("the registry has no node {name}")));
    };
    let config = &c.shared.config;
    let view = {
        let _turn = c.shared.compiling.take(1, BUSY).ok_or_else(busy)?;
        world.inputs.view(world.version, &world.announced, node, config)
    };
    // What is shared does not count for each.
    let bytes = view.own_bytes();
    let part = c.shared.sending.take(bytes, BUSY).ok_or_else(busy)?;
    Ok((view, part))
}

/// Whether a list of entity tags has this one.
fn names(tags: &str, etag: &str) -> bool {
    tags.split(',').map(str::trim).any(|tag| tag.strip_prefix("W/").unwrap_or(tag) == etag)
}

fn announce(c: &Connection, request: &Request, caller: &Caller) -> Result<Reply, Reply> {
    let world = c.shared.keeper.current();
    let mut identity = permit(c, &world, caller, |r| r.recorder, "recorder")?;
    let mut said = Announcement::parse(&request.body).map_err(|why| Reply::text(400, &why))?;
    let mut own = identity.tags.clone();
    if let Some(node) = world.inputs.node(&identity.node) {
        own.extend(node.tags.iter().cloned());
        identity.node.clone_from(&node.id);
    }
    if let Some(tag) = said.tags.iter().find(|tag| !own.contains(tag)) {
        let why = format!("{} does not have {tag}", identity.node);
        log::warn!("{}: 403: announcement: {}", c.peer, escape_control(&why));
        return Err(Reply::text(403, &why));
    }
    if said.tags.is_empty() {
        said.tags = own;
    }
    if said.tags.is_empty() {
        return Err(Reply::text(
            403,
            &format!("{} has no tag that a rule could name", identity.node),
        ));
    }
    if world.announced.of(&identity.node) != Some(&said) {
        permit_change(c, &identity.node)?;
    }
    count(&c.shared.counters.announcements);
    let addresses = said.addresses.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let tags = said.tags.join(", ");
    let news = c.shared.keeper.announce(c.shared.now(), &identity.node, said);
    if news.map_err(refused)? {
        log::info!("recorder {} is at {addresses} ({tags})", escape_control(&identity.node));
        c.shared.wake_all();
    }
    let heartbeat = c.shared.config.heartbeat;
    let seconds = |time: Duration| span(time).0 as f64 / 1e6;
    let body = json!({
        "heartbeatSeconds": seconds(heartbeat),
        "expiresSeconds": seconds(heartbeat * 3),
    });
    Ok(Reply::json(200, &body.to_string()))
}

fn withdraw(c: &Connection, caller: &Caller) -> Result<Reply, Reply> {
    let world = c.shared.keeper.current();
    let identity = permit(c, &world, caller, |r| r.recorder, "recorder")?;
    let holder = world.inputs.node(&identity.node).map_or(identity.node, |node| node.id.clone());
    if c.shared.keeper.withdraw(&holder).map_err(refused)? {
        log::info!("recorder {} takes no more", escape_control(&holder));
        c.shared.wake_all();
    }
    Ok(Reply::empty(204))
}

/// A recorder that changes its mind all the time must not keep every node busy.
fn permit_change(c: &Connection, holder: &str) -> Result<(), Reply> {
    if c.shared.changes.allow(c.shared.now(), holder) {
        return Ok(());
    }
    count(&c.shared.counters.limited);
    Err(Reply::text(429, "too many changes").field("Retry-After", "5"))
}

fn refused(why: Refused) -> Reply {
    match why {
        Refused::Full(why) => Reply::text(429, why),
        Refused::Disk(e) => {
            log::error!("the state directory: {e}");
            Reply::text(507, "the state directory takes nothing now")
        }
    }
}

fn notify(c: &Connection, request: &Request, caller: &Caller) -> Result<Reply, Reply> {
    let world = c.shared.keeper.current();
    let identity = permit(c, &world, caller, |r| r.node, "node")?;
    let event =
        Event::parse(&identity.node, &request.body).map_err(|why| Reply::text(400, &why))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let kept = c.shared.events.append(&Entry {
        time: &format_time(span(now).0),
        node: &identity.node,
        address: &c.peer.ip().to_string(),
        text: &event.sentence,
        event: &event.value,
    });
    let kept = kept.map_err(|e| {
        log::error!("the event log: {e}");
        Reply::text(507, "the event cannot be kept")
    })?;
    let Some(number) = kept else {
        return Ok(Reply::text(201, "kept before"));
    };
    count(&c.shared.counters.events);
    if event.unrecorded {
        count(&c.shared.counters.unrecorded);
        log::error!("ALERT event {number}: {}", event.sentence);
    } else {
        log::warn!("event {number}: {}", event.sentence);
    }
    Ok(Reply::text(201, &format!("kept as {number}")))
}

/// Lines of the log behind a number.
fn events(c: &Connection, request: &Request, caller: &Caller) -> Result<Reply, Reply> {
    let since = request.number("since")?.unwrap_or(0);
    let world = c.shared.keeper.current();
    permit(c, &world, caller, |r| r.admin, "admin")?;
    let lines = c.shared.events.read(since, limits::EVENTS_ANSWER_BYTES).map_err(|e| {
        log::error!("the event log: {e}");
        Reply::text(500, "the event log cannot be read")
    })?;
    let text: String = lines.iter().map(|line| format!("{}\n", line.text)).collect();
    Ok(Reply::with(200, "application/x-ndjson", vec![text.into()]))
}

/// How long a request waits for its turn.
const BUSY: Duration = Duration::from_secs(10);
