//! Health and metrics: one small request a connection, over HTTP/1.1, on a listener of its own.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process serves |
//! | `/readyz` | 200 when new recordings can be taken, else 503 with the reason |
//! | `/metrics` | text format of Prometheus |

use std::fmt::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use std::io::{ErrorKind, Read as _, Write as _};

use super::config::duration;
use super::shared::{Phase, Shared};
use super::storage::Quota;
use super::tailnet::Tailnet;
use crate::http1::{self, HeadError};
use crate::limits;

/// Answers one request and closes.
pub(crate) fn serve(shared: &Shared, tcp: TcpStream) {
    exchange(tcp, |path| answer(shared, path));
}

/// The same for whatever answers.
pub(crate) fn exchange(mut tcp: TcpStream, answer: impl Fn(&str) -> Answer) {
    let end = Instant::now() + duration(limits::METRICS_TIME);
    if tcp.set_nonblocking(false).is_err() {
        return;
    }
    let mut head = Vec::new();
    let answer = loop {
        match http1::parse_request(&head) {
            Ok(Some((request, _))) => {
                let (method, path) = (request.method, request.path());
                break if method == "GET" || method == "HEAD" {
                    Answer { head_only: method == "HEAD", ..answer(path) }
                } else {
                    Answer::text(405, "only GET and HEAD are answered here")
                };
            }
            Ok(None) => {}
            Err(HeadError::TooLarge) => break Answer::text(431, "request too large"),
            Err(HeadError::Version) => break Answer::text(505, "only HTTP/1.1 is spoken here"),
            Err(HeadError::Malformed) => break Answer::text(400, "not an HTTP request"),
        }
        let mut buf = [0u8; 2048];
        match limited(&tcp, end).and_then(|()| tcp.read(&mut buf)) {
            Ok(0) | Err(_) => return,
            Ok(n) => head.extend_from_slice(&buf[..n]),
        }
    };
    let length = answer.body.len().to_string();
    let mut fields = vec![
        ("Content-Type", "text/plain; version=0.0.4; charset=utf-8"),
        ("Content-Length", length.as_str()),
        ("Cache-Control", "no-store"),
        ("Connection", "close"),
    ];
    if answer.status == 405 {
        fields.push(("Allow", "GET, HEAD"));
    }
    let mut out = vec![0; 512];
    let Ok(used) = http1::write_response(&mut out, answer.status, &fields) else { return };
    out.truncate(used);
    if !answer.head_only {
        out.extend_from_slice(answer.body.as_bytes());
    }
    let mut rest = out.as_slice();
    while !rest.is_empty() {
        match limited(&tcp, end).and_then(|()| tcp.write(rest)) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(e) if e.kind() == ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
    let _ = tcp.shutdown(Shutdown::Write);
    // Until the peer has read it: a close with unread input would be a reset.
    while limited(&tcp, end).is_ok() && matches!(tcp.read(&mut [0u8; 512]), Ok(1..)) {}
}

/// What is said.
pub(crate) struct Answer {
    status: u16,
    body: String,
    head_only: bool,
}

impl Answer {
    pub(crate) fn text(status: u16, text: &str) -> Self {
        Self { status, body: format!("{text}\n"), head_only: false }
    }

    /// A page for Prometheus.
    pub(crate) fn page(body: String) -> Self {
        Self { status: 200, body, head_only: false }
    }
}

fn answer(shared: &Shared, path: &str) -> Answer {
    match path {
        "/healthz" => Answer::text(200, "ok"),
        "/readyz" => match ready(shared) {
            Ok(()) => Answer::text(200, "ready"),
            Err(why) => Answer::text(503, why),
        },
        "/metrics" => Answer::page(metrics(shared)),
        _ => Answer::text(404, "there are /healthz, /readyz and /metrics"),
    }
}

/// Whether new recordings can be taken, asked for now.
fn ready(shared: &Shared) -> Result<(), &'static str> {
    shared.available()?;
    match shared.tailnet.as_ref().map(Tailnet::check) {
        Some(Err(_)) => Err("tailscaled does not answer"),
        Some(Ok(())) | None => Ok(()),
    }
}

/// The page for Prometheus. No label comes from a peer: their number would have no bound.
fn metrics(shared: &Shared) -> String {
    let mut page = Page::default();
    let c = &shared.counters;
    let get = |n: &std::sync::atomic::AtomicU64| n.load(Ordering::Relaxed);
    page.one("info", "gauge", "Always 1; the version is the label.");
    page.value("info", &format!("{{version=\"{}\"}}", crate::VERSION), 1);
    page.gauge("ready", "Whether new recordings are taken.", u64::from(shared.available().is_ok()));
    page.gauge(
        "draining",
        "Whether the recorder is stopping.",
        u64::from(shared.phase() != Phase::Running),
    );
    page.counter("connections_total", "Connections served.", get(&c.connections));
    page.gauge("connections", "Connections now.", c.open.load(Ordering::Relaxed) as u64);
    page.counter(
        "connections_refused_total",
        "Connections past the bound, or without descriptor or thread.",
        get(&c.refused),
    );
    page.counter("accept_errors_total", "Errors of accept.", get(&c.accept_errors));
    page.counter("tls_failures_total", "TLS handshakes that failed.", get(&c.tls_failures));
    page.counter("panics_total", "Connections ended by a bug.", get(&c.panics));
    page.counter("received_bytes_total", "Body bytes of recordings received.", get(&c.received));
    page.one("uploads_total", "counter", "Uploads accepted, by protocol.");
    for (protocol, n) in
        [("v1", &c.v1), ("v2", &c.v2), ("v2+commit", &c.v2_commit), ("castkeep/1", &c.upgrade)]
    {
        page.value("uploads_total", &format!("{{protocol=\"{protocol}\"}}"), get(n));
    }
    page.counter("events_total", "Events stored.", get(&c.events));
    page.counter("refusals_total", "Uploads and events refused.", get(&c.refusals));
    page.counter("failures_total", "Uploads that ended with an error object.", get(&c.failures));
    if let Some(tailnet) = &shared.tailnet {
        let c = &tailnet.counters;
        page.one("whois_total", "counter", "Peers asked for at tailscaled, by what it said.");
        for (said, n) in
            [("node", &c.node), ("stranger", &c.stranger), ("failed", &c.failed), ("kept", &c.kept)]
        {
            page.value("whois_total", &format!("{{said=\"{said}\"}}"), get(n));
        }
    }
    if let Some(tls) = &shared.tls {
        let ends = u64::try_from(tls.ends.load(Ordering::Relaxed)).unwrap_or(0);
        page.gauge("certificate_ends_seconds", "When the certificate ends, since 1970.", ends);
        page.counter(
            "certificate_failures_total",
            "Certificates that could not be read again or were not taken.",
            get(&tls.failures),
        );
    }

    let s = shared.store.status();
    page.gauge("storage_free_bytes", "Bytes free for recordings.", s.free_bytes);
    page.gauge("parts_open", "Parts that are not closed.", s.open_parts);
    page.counter("parts_total", "Parts begun.", s.parts);
    page.counter("parts_sealed_total", "Parts closed.", s.sealed);
    page.counter("parts_failed_total", "Parts ended by an error.", s.failed);
    page.counter("stored_bytes_total", "Bytes written to parts.", s.bytes);
    page.counter("commits_total", "Commits, one for each part and flush.", s.commits);
    page.counter("flushes_total", "Flushes of the commit group.", s.flushes);
    page.counter("flush_microseconds_total", "Time in flushes.", s.flush_us);
    page.gauge("last_flush_microseconds", "Time of the last flush.", s.last_flush_us);
    page.gauge(
        "uncommitted_bytes",
        "Bytes that were received and are not committed.",
        s.uncommitted_bytes,
    );
    page.gauge(
        "uncommitted_microseconds",
        "How long ago the oldest of them was received.",
        s.uncommitted_us,
    );
    page.one("over_quota_total", "counter", "Uploads refused or ended by a quota, by its option.");
    for (quota, n) in Quota::ALL.into_iter().zip(s.over_quota) {
        page.value("over_quota_total", &format!("{{quota=\"{}\"}}", quota.word()), n);
    }
    page.text
}

/// A page for Prometheus in the making.
#[derive(Default)]
pub(crate) struct Page {
    pub(crate) text: String,
}

impl Page {
    pub(crate) fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.one(name, "counter", help);
        self.value(name, "", value);
    }

    pub(crate) fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.one(name, "gauge", help);
        self.value(name, "", value);
    }

    pub(crate) fn one(&mut self, name: &str, kind: &str, help: &str) {
        let _ = writeln!(self.text, "# HELP castkeep_{name} {help}\n# TYPE castkeep_{name} {kind}");
    }

    pub(crate) fn value(&mut self, name: &str, labels: &str, value: u64) {
        let _ = writeln!(self.text, "castkeep_{name}{labels} {value}");
    }
}

/// Sets the socket's timeouts to what is left of the deadline.
fn limited(tcp: &TcpStream, end: Instant) -> std::io::Result<()> {
    let left = end.saturating_duration_since(Instant::now());
    if left < Duration::from_millis(1) {
        return Err(ErrorKind::TimedOut.into());
    }
    tcp.set_read_timeout(Some(left))?;
    tcp.set_write_timeout(Some(left))
}
