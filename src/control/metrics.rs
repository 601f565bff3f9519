//! Health and metrics, on a listener of its own.
//!
//! | path | answer |
//! |---|---|
//! | `/healthz` | 200 while the process serves |
//! | `/readyz` | 200 while policies are handed out, also those of before a broken edit; 503 when it stops |
//! | `/metrics` | text format of Prometheus |

use std::net::TcpStream;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use super::shared::Shared;
use crate::recorder::health::{Answer, Page, exchange};

/// Answers one request and closes.
pub(super) fn serve(shared: &Shared, tcp: TcpStream) {
    exchange(tcp, |path| match path {
        "/healthz" => Answer::text(200, "ok"),
        "/readyz" if shared.is_stopping() => Answer::text(503, "stopping"),
        "/readyz" => Answer::text(200, "ready"),
        "/metrics" => Answer::page(page(shared)),
        _ => Answer::text(404, "there are /healthz, /readyz and /metrics"),
    });
}

/// No label comes from a peer: their number would have no bound.
fn page(shared: &Shared) -> String {
    let mut page = Page::default();
    let c = &shared.counters;
    let get = |n: &AtomicU64| n.load(Ordering::Relaxed);
    let now = |n: &AtomicUsize| n.load(Ordering::Relaxed) as u64;
    let world = shared.keeper.current();
    page.one("info", "gauge", "Always 1; the version is the label.");
    page.value("info", &format!("{{version=\"{}\"}}", crate::VERSION), 1);
    page.gauge("control_policy_version", "Version that is handed out.", world.version);
    page.gauge(
        "control_policy_broken",
        "Whether the files as they are now cannot be used, so that earlier ones are.",
        u64::from(shared.keeper.broken.load(Ordering::Relaxed)),
    );
    page.counter(
        "control_reloads_total",
        "Times that policy and registry were read again.",
        get(&shared.keeper.reloads),
    );
    page.gauge(
        "control_recorders",
        "Recorders that announced themselves.",
        world.announced.len() as u64,
    );
    page.counter("control_connections_total", "Connections served.", get(&c.connections));
    page.gauge("control_connections", "Connections now.", now(&c.open));
    page.gauge("control_waiting", "Requests that wait for a change.", now(&c.waiting));
    page.counter("control_connections_refused_total", "Connections past a bound.", get(&c.refused));
    page.counter("control_accept_errors_total", "Errors of accept.", get(&c.accept_errors));
    page.counter("control_tls_failures_total", "TLS handshakes that failed.", get(&c.tls_failures));
    page.counter("control_unauthorized_total", "Requests of nobody known.", get(&c.unauthorized));
    page.counter("control_limited_total", "Requests past an identity's bound.", get(&c.limited));
    page.counter("control_policies_total", "Policies handed out.", get(&c.policies));
    page.counter("control_unchanged_total", "Answers that nothing changed.", get(&c.unchanged));
    page.counter("control_announcements_total", "Announcements taken.", get(&c.announcements));
    page.counter("control_events_total", "Events kept.", get(&c.events));
    page.counter(
        "control_unrecorded_total",
        "Events that a session goes on unrecorded.",
        get(&c.unrecorded),
    );
    let w = &shared.webhook;
    page.counter("control_webhook_sent_total", "Events that the webhook took.", get(&w.sent));
    page.counter("control_webhook_failures_total", "Attempts that failed.", get(&w.failures));
    page.counter("control_webhook_lost_total", "Events that it never took.", get(&w.lost));
    page.text
}
