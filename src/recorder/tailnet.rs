//! Who a peer is, by Tailscale's WhoIs: asked once a connection, kept for a short time.
//!
//! An address that nobody holds is a stranger. When `tailscaled` cannot be asked nobody is taken in: an identity that was
//! true a while ago is no identity, since addresses are given to other nodes.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::config::duration;
use crate::limits;
use crate::localapi::{LocalApi, LocalApiError, WhoIs};

/// What is known of a peer.
#[derive(Clone, Debug)]
pub(crate) enum Who {
    /// A node of the tailnet.
    Node(Arc<WhoIs>),
    /// Nobody that this node knows.
    Stranger,
    /// tailscaled did not say.
    NoAnswer,
}

/// The tailnet as a recorder asks for it.
#[derive(Debug)]
pub(crate) struct Tailnet {
    api: LocalApi,
    kept: Mutex<Kept>,
    turns: Mutex<usize>,
    turn: Condvar,
    pub(crate) counters: Counters,
    trouble: Mutex<Trouble>,
}

/// How often WhoIs said what.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) node: AtomicU64,
    pub(crate) stranger: AtomicU64,
    pub(crate) failed: AtomicU64,
    /// Questions that needed no request.
    pub(crate) kept: AtomicU64,
}

#[derive(Debug, Default)]
struct Kept {
    /// At most [`limits::WHOIS_KEPT`].
    answers: HashMap<IpAddr, (Instant, Option<Arc<WhoIs>>)>,
}

/// Whether it answers, so that the log says it once, and again after a while.
#[derive(Debug, Default)]
struct Trouble {
    said: Option<Instant>,
}

impl Tailnet {
    pub(crate) fn new(socket: &Path) -> Self {
        Self {
            api: LocalApi::new(socket),
            kept: Mutex::default(),
            turns: Mutex::new(0),
            turn: Condvar::new(),
            counters: Counters::default(),
            trouble: Mutex::default(),
        }
    }

    /// Who is at the other end of a connection, within [`limits::WHOIS_TIME`].
    pub(crate) fn who(&self, peer: SocketAddr) -> Who {
        let until = Instant::now() + duration(limits::WHOIS_TIME);
        if let Some(who) = self.kept(peer.ip()) {
            return who;
        }
        let Some(_turn) = self.take_turn(until) else {
            return self.no_answer("too many questions wait for an answer");
        };
        // Another connection of the same node can have asked meanwhile.
        if let Some(who) = self.kept(peer.ip()) {
            return who;
        }
        match self.api.whois(peer, until.saturating_duration_since(Instant::now())) {
            Ok(found) => {
                self.answers_again();
                let found = found.map(Arc::new);
                self.keep(peer.ip(), found.clone());
                let counter = match found {
                    Some(_) => &self.counters.node,
                    None => &self.counters.stranger,
                };
                counter.fetch_add(1, Ordering::Relaxed);
                found.map_or(Who::Stranger, Who::Node)
            }
            Err(e) => self.no_answer(&e.to_string()),
        }
    }

    /// Whether tailscaled answers now.
    pub(crate) fn check(&self) -> Result<(), LocalApiError> {
        let nobody = SocketAddr::from(([127, 0, 0, 1], 1));
        self.api.whois(nobody, duration(limits::WHOIS_TIME)).map(drop)
    }

    /// The socket, for people.
    pub(crate) fn shown(&self) -> String {
        self.api.socket().display().to_string()
    }

    fn kept(&self, ip: IpAddr) -> Option<Who> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let (until, found) = kept.answers.get(&ip.to_canonical())?;
        if *until <= Instant::now() {
            return None;
        }
        self.counters.kept.fetch_add(1, Ordering::Relaxed);
        Some(found.clone().map_or(Who::Stranger, Who::Node))
    }

    fn keep(&self, ip: IpAddr, found: Option<Arc<WhoIs>>) {
        let ip = ip.to_canonical();
        // Behind loopback is whoever tailscaled passes on, port by port.
        if ip.is_loopback() {
            return;
        }
        let fresh = match found {
            Some(_) => limits::WHOIS_FRESH,
            None => limits::WHOIS_FRESH_UNKNOWN,
        };
        let now = Instant::now();
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.answers.len() >= limits::WHOIS_KEPT {
            kept.answers.retain(|_, (until, _)| *until > now);
        }
        if kept.answers.len() < limits::WHOIS_KEPT {
            kept.answers.insert(ip, (now + duration(fresh), found));
        }
    }

    fn take_turn(&self, until: Instant) -> Option<Turn<'_>> {
        let wait = until.saturating_duration_since(Instant::now());
        let turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut turns, _) = self
            .turn
            .wait_timeout_while(turns, wait, |turns| *turns >= limits::WHOIS_AT_A_TIME)
            .unwrap_or_else(PoisonError::into_inner);
        if *turns >= limits::WHOIS_AT_A_TIME {
            return None;
        }
        *turns += 1;
        Some(Turn(self))
    }

    fn no_answer(&self, why: &str) -> Who {
        self.counters.failed.fetch_add(1, Ordering::Relaxed);
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.said.is_none_or(|at| at.elapsed() >= SAY_EVERY) {
            trouble.said = Some(Instant::now());
            let shown = self.shown();
            log::error!(
                "nobody is taken in: tailscaled at {shown} does not say who peers are: {why}"
            );
        }
        Who::NoAnswer
    }

    fn answers_again(&self) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        if trouble.said.take().is_some() {
            log::info!("tailscaled at {} answers again", self.shown());
        }
    }
}

struct Turn<'a>(&'a Tailnet);

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
        *turns = turns.saturating_sub(1);
        self.0.turn.notify_one();
    }
}

const SAY_EVERY: Duration = Duration::from_secs(30);

#[cfg(test)]
#[path = "../../tests/localapi_support/mod.rs"]
mod stand_in;

#[cfg(test)]
mod tests {
    use super::stand_in::{LocalApiServer, Mode, Peer};
    use super::*;

    fn start(name: &str) -> (LocalApiServer, Tailnet) {
        let path = std::env::temp_dir().join(format!("castkeep-{name}-{}", std::process::id()));
        let server = LocalApiServer::start(&path);
        server.add(&Peer::new("nA1CNTRL", "100.64.0.5"));
        let tailnet = Tailnet::new(server.path());
        (server, tailnet)
    }

    fn id(tailnet: &Tailnet, at: &str) -> Option<String> {
        match tailnet.who(at.parse().unwrap()) {
            Who::Node(node) => Some(node.id.clone()),
            Who::Stranger => Some("nobody".into()),
            Who::NoAnswer => None,
        }
    }

    #[test]
    fn an_answer_holds_for_a_short_time_and_for_every_port() {
        let (mut server, tailnet) = start("tailkept");
        for port in 1..100 {
            let at = format!("100.64.0.5:{port}");
            assert_eq!(id(&tailnet, &at).as_deref(), Some("nA1CNTRL"));
        }
        assert_eq!(id(&tailnet, "[::ffff:100.64.0.5]:1").as_deref(), Some("nA1CNTRL"));
        assert_eq!(server.whois_count(), 1);
        assert_eq!(id(&tailnet, "100.64.0.6:1").as_deref(), Some("nobody"));
        server.stop();
        assert_eq!(id(&tailnet, "100.64.0.5:1").as_deref(), Some("nA1CNTRL"), "still fresh");
        assert_eq!(id(&tailnet, "100.64.0.7:1"), None);
        // Once its time is over it is nothing any more, whatever it was.
        for (until, _) in tailnet.kept.lock().unwrap().answers.values_mut() {
            *until = Instant::now();
        }
        assert_eq!(id(&tailnet, "100.64.0.5:1"), None);
        server.start_again();
        assert_eq!(id(&tailnet, "100.64.0.5:1").as_deref(), Some("nA1CNTRL"));
    }

    #[test]
    fn what_is_kept_has_a_bound_and_loopback_is_not() {
        let (server, tailnet) = start("tailbound");
        let far = Instant::now() + Duration::from_secs(600);
        let ip = |n: u32| IpAddr::V4((0x6440_0100 + n).into());
        for n in 0..limits::WHOIS_KEPT as u32 {
            tailnet.kept.lock().unwrap().answers.insert(ip(n), (far, None));
        }
        assert_eq!(id(&tailnet, "100.64.0.5:1").as_deref(), Some("nA1CNTRL"));
        assert_eq!(id(&tailnet, "100.64.0.5:1").as_deref(), Some("nA1CNTRL"));
        assert_eq!(server.whois_count(), 2, "there was no room to keep it");
        tailnet.kept.lock().unwrap().answers.get_mut(&ip(0)).unwrap().0 = Instant::now();
        assert_eq!(id(&tailnet, "100.64.0.5:1").as_deref(), Some("nA1CNTRL"));
        assert_eq!(id(&tailnet, "100.64.0.5:1").as_deref(), Some("nA1CNTRL"));
        assert_eq!(server.whois_count(), 3, "what was over made room");
        assert_eq!(tailnet.kept.lock().unwrap().answers.len(), limits::WHOIS_KEPT);
        server.add_at("127.0.0.1:9", &Peer::new("nB2CNTRL", "100.64.0.9"));
        assert_eq!(id(&tailnet, "127.0.0.1:9").as_deref(), Some("nB2CNTRL"));
        assert_eq!(id(&tailnet, "127.0.0.1:10").as_deref(), Some("nobody"));
    }

    #[test]
    fn many_at_once_wait_for_their_turn_and_not_for_ever() {
        let (server, tailnet) = start("tailturns");
        server.set_mode(Mode::Silent);
        let begun = Instant::now();
        std::thread::scope(|scope| {
            for n in 0..3 * limits::WHOIS_AT_A_TIME {
                let tailnet = &tailnet;
                scope.spawn(move || assert_eq!(id(tailnet, &format!("100.64.1.{n}:1")), None));
            }
        });
        assert!(server.whois_count() <= limits::WHOIS_AT_A_TIME);
        // All of them in the time of one, with much room for a busy machine.
        assert!(begun.elapsed() < 5 * duration(limits::WHOIS_TIME));
        server.set_mode(Mode::Honest);
        assert_eq!(id(&tailnet, "100.64.0.5:1").as_deref(), Some("nA1CNTRL"));
    }
}
