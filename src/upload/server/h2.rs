//! A connection that speaks HTTP/2.

use alloc::string::String;
use alloc::vec::Vec;

use super::exchange::Exchange;
use super::route::{self, Head, Route};
use super::{HowEnded, Protocol, Request, RequestId, ServerConfig, Shared};
use crate::http1::path_of;
use crate::http2::{self, Code, Config, Connection, Fields};
use crate::limits::LINGER_BYTES;
use crate::time::Tick;
use crate::upload::wire::{
    Decimal, FEATURES, H_ACK_MS, H_COMMIT, H_FEATURES, H_RECORDING, PATH_V2,
};

/// The connection and its requests.
#[derive(Debug)]
pub(super) struct H2 {
    h2: Connection,
    /// At most the streams that a peer may have open.
    pub(super) exchanges: Vec<Exchange>,
    /// When the peer was last heard.
    heard: Tick,
    /// When the PING of silence went out.
    pinged: Option<Tick>,
    /// When the last request ended.
    idle: Tick,
    /// GOAWAY went out, or the peer closed: when the last request is done, so is the connection.
    closing: bool,
    /// The peer sends nothing more, so no window will open.
    eof: bool,
    /// The shell was told that an ack is due: until it asks for output, it is not told again.
    ack_told: bool,
}

impl H2 {
    pub(super) fn new(now: Tick) -> Self {
        Self {
            h2: Connection::server(&Config::default()),
            exchanges: Vec::new(),
            heard: now,
            pinged: None,
            idle: now,
            closing: false,
            eof: false,
            ack_told: false,
        }
    }

    /// Takes everything: the windows bound what can wait.
    pub(super) fn handle_input(&mut self, shared: &mut Shared, now: Tick, input: &[u8]) -> usize {
        if input.is_empty() {
            return 0;
        }
        self.heard = now;
        self.pinged = None;
        let mut rest = input;
        while let Some(event) = self.h2.handle_input(now, &mut rest) {
            match event {
                http2::Event::Headers { stream, fields, end, too_large } => {
                    self.handle_request(shared, now, stream, &fields, end, too_large);
                }
                http2::Event::Data { stream, data, end } => {
                    self.handle_data(shared, now, stream, data, end);
                }
                http2::Event::Reset { stream, .. } => self.handle_reset(shared, now, stream),
                http2::Event::Failed(_) => self.lose_all(shared),
                http2::Event::Pong | http2::Event::GoAway { .. } => {}
            }
        }
        input.len()
    }

    fn handle_request(
        &mut self,
        shared: &mut Shared,
        now: Tick,
        stream: u32,
        fields: &Fields,
        end: bool,
        too_large: bool,
    ) {
        self.idle = now;
        let id = shared.new_id();
        let path = path_of(fields.get(":path").unwrap_or(""));
        // The stock client closes the answer's body before it looks for another recorder, and waits for its own upload to end when
        // there is a body: for ever, since nobody writes to it yet.
        let post = fields.get(":method") == Some("POST");
        let bare_refusal = post && path == PATH_V2 && !fields.has(H_RECORDING);
        let what = if too_large {
            Route::Refuse { status: 431, text: "the request head is too large", allow: None }
        } else {
            route::route(&Head {
                method: fields.get(":method").unwrap_or(""),
                path,
                http2: true,
                find: |name: &str| fields.get(name),
                from_browser: fields.has("origin") || fields.has("sec-fetch-site"),
                upgrade: false,
                has_body: !end,
                content_length: fields.get("content-length").and_then(|n| n.parse().ok()),
                extension: shared.cfg.extension,
                available: shared.available,
            })
        };
        let Route::Ask(kind) = what else {
            let mut exchange = Exchange::new(id, stream, None);
            exchange.bare_refusal = bare_refusal;
            if end {
                exchange.end_body(HowEnded::Clean);
            }
            self.exchanges.push(exchange);
            self.answer_inside(&shared.cfg, id, fields.get(":method") == Some("HEAD"), &what);
            return;
        };
        let mut exchange = Exchange::new(id, stream, Some(kind));
        exchange.bare_refusal = bare_refusal;
        exchange.expects_continue = fields.get("expect").is_some_and(is_continue);
        if end {
            exchange.end_body(HowEnded::Clean);
        }
        self.exchanges.push(exchange);
        shared.requests.push_back(Request { id, kind });
    }

    fn handle_data(&mut self, shared: &mut Shared, now: Tick, stream: u32, data: &[u8], end: bool) {
        let Some(exchange) = self.exchanges.iter_mut().find(|e| e.stream == stream) else {
            self.h2.credit(stream, data.len());
            return;
        };
        if exchange.is_answered() {
            // The answer is out. A well-behaved peer stops soon; another one is told to.
            exchange.discarded = exchange.discarded.saturating_add(data.len());
            let enough = exchange.discarded > LINGER_BYTES && !self.h2.sends(stream);
            self.h2.credit(stream, data.len());
            if end {
                exchange.end_body(HowEnded::Clean);
            } else if enough {
                self.h2.reset(stream, Code::NoError);
            }
            self.sweep();
            self.idle = now;
            return;
        }
        let fits = exchange.push_body(data);
        let id = exchange.id;
        if end {
            exchange.end_body(HowEnded::Clean);
        }
        if !fits {
            shared.lose(exchange);
            self.h2.credit(stream, data.len());
            self.answer(now, id, 413, "the event is too large");
        }
    }

    fn handle_reset(&mut self, shared: &mut Shared, now: Tick, stream: u32) {
        let Some(at) = self.exchanges.iter().position(|e| e.stream == stream) else { return };
        let mut exchange = self.exchanges.swap_remove(at);
        self.idle = now;
        if exchange.is_of_interest() && !exchange.is_pending() {
            // What was received before it is still read. The stream is gone, so nothing is answered.
            exchange.end_body(HowEnded::Truncated);
            exchange.acks.stop();
            self.exchanges.push(exchange);
            return;
        }
        self.h2.credit(0, exchange.body.len());
        shared.lose(&exchange);
    }

    /// The connection is of no more use. What was received is still read.
    fn lose_all(&mut self, shared: &mut Shared) {
        self.closing = true;
        self.exchanges.retain_mut(|exchange| {
            if exchange.is_of_interest() && !exchange.is_pending() {
                exchange.end_body(HowEnded::Truncated);
                exchange.acks.stop();
                return true;
            }
            shared.lose(exchange);
            false
        });
    }

    /// Nothing goes out any more. What was received is still read.
    pub(super) fn handle_lost(&mut self, shared: &mut Shared) {
        self.lose_all(shared);
        self.h2.abandon();
    }

    pub(super) fn handle_eof(&mut self, shared: &mut Shared) {
        self.closing = true;
        self.eof = true;
        self.exchanges.retain_mut(|exchange| {
            // The body is whole: the answer may still be wanted, a peer can close one side only.
            if exchange.body_ended() {
                return true;
            }
            if exchange.is_pending() || exchange.is_answered() {
                shared.lose(exchange);
                return false;
            }
            exchange.end_body(HowEnded::Truncated);
            exchange.acks.stop();
            true
        });
    }

    pub(super) fn handle_timeout(&mut self, shared: &mut Shared, now: Tick) {
        if self.h2.is_failed() {
            return;
        }
        self.ack_told = self.ack_due().is_some_and(|due| due <= now);
        let cfg = &shared.cfg;
        self.end_answered(cfg, now);
        if self.exchanges.is_empty() {
            if !self.closing && now >= self.idle.after(cfg.idle_time) {
                self.shutdown();
            }
            return;
        }
        match self.pinged {
            None if now >= self.heard.after(cfg.ping_time) => {
                self.h2.ping();
                self.pinged = Some(now);
            }
            Some(at) if now >= at.after(cfg.ping_time) => {
                self.h2.goaway(Code::NoError);
                self.lose_all(shared);
            }
            _ => {}
        }
    }

    pub(super) fn poll_timeout(&self, cfg: &ServerConfig) -> Option<Tick> {
        if self.h2.is_failed() {
            return None;
        }
        if self.exchanges.is_empty() {
            return (!self.closing).then(|| self.idle.after(cfg.idle_time));
        }
        let alive = self.pinged.unwrap_or(self.heard).after(cfg.ping_time);
        let acks = self.ack_due().filter(|_| !self.ack_told);
        let answered = self.exchanges.iter().filter_map(|e| e.answered_at).min();
        let answered = answered.map(|at| at.after(cfg.idle_time));
        [Some(alive), acks, answered].into_iter().flatten().min()
    }

    /// With output waiting the peer is the one to be waited for, not the clock.
    fn ack_due(&self) -> Option<Tick> {
        self.exchanges.iter().filter(|e| e.out.is_empty()).filter_map(|e| e.acks.due()).min()
    }

    /// A peer that neither reads its answer nor ends its request holds no place for ever.
    fn end_answered(&mut self, cfg: &ServerConfig, now: Tick) {
        let h2 = &mut self.h2;
        let before = self.exchanges.len();
        self.exchanges.retain(|exchange| {
            let over = exchange.answered_at.is_some_and(|at| now >= at.after(cfg.idle_time));
            if over {
                h2.reset(exchange.stream, Code::NoError);
            }
            !over
        });
        if before != self.exchanges.len() {
            self.idle = now;
        }
    }

    pub(super) fn accept(
        &mut self,
        cfg: &ServerConfig,
        now: Tick,
        id: RequestId,
        commit: Option<u64>,
    ) {
        let Some(exchange) = self.exchanges.iter_mut().find(|e| e.id == id && e.is_pending())
        else {
            return;
        };
        let stream = exchange.stream;
        match exchange.protocol() {
            Some(Protocol::V2Commit) => {
                let commit = commit.unwrap_or(0);
                exchange.accept(now, Some(cfg.ack_period_commit), Some(commit));
                let commit = Decimal::new(commit);
                let period = Decimal::new(cfg.ack_period_commit.0 / 1000);
                let fields =
                    [(":status", "200"), (H_COMMIT, commit.as_str()), (H_ACK_MS, period.as_str())];
                self.h2.send_headers(stream, &fields, false);
            }
            Some(Protocol::V2) => {
                exchange.accept(now, Some(cfg.ack_period_stock), None);
                self.h2.send_headers(stream, &[(":status", "200")], false);
            }
            _ => {
                exchange.accept(now, None, None);
                if exchange.expects_continue {
                    self.h2.send_headers(stream, &[(":status", "100")], false);
                }
            }
        }
    }

    /// The final answer to a request.
    pub(super) fn answer(&mut self, now: Tick, id: RequestId, status: u16, text: &str) {
        self.idle = now;
        let find = |e: &&mut Exchange| e.id == id && !e.is_answered();
        let Some(exchange) = self.exchanges.iter_mut().find(find) else { return };
        let unread = exchange.body.len();
        exchange.body.clear();
        let stream = exchange.stream;
        exchange.close_answer();
        send_text(&mut self.h2, exchange, status, &[], false, text);
        self.h2.credit(stream, unread);
    }

    fn answer_inside(&mut self, cfg: &ServerConfig, id: RequestId, is_head: bool, what: &Route) {
        let Some(exchange) = self.exchanges.iter_mut().find(|e| e.id == id) else { return };
        exchange.close_answer();
        let h2 = &mut self.h2;
        match what {
            Route::Refuse { status, text, allow } => {
                let allow = allow.map(|a| [("allow", a)]);
                let fields = allow.as_ref().map_or(&[][..], |a| &a[..]);
                send_text(h2, exchange, *status, fields, is_head, text);
            }
            Route::Banner => send_text(h2, exchange, 200, &[], is_head, &cfg.banner),
            Route::Probe if cfg.extension => {
                let period = Decimal::new(cfg.ack_period_commit.0 / 1000);
                let fields = [(H_FEATURES, FEATURES), (H_ACK_MS, period.as_str())];
                send_text(h2, exchange, 200, &fields, true, "");
            }
            Route::EventProbe | Route::Probe | Route::Ask(_) => {
                send_text(h2, exchange, 200, &[], true, "");
            }
        }
    }

    /// The ack stream of a request has its last object.
    pub(super) fn ended(&mut self, id: RequestId) {
        let Some(exchange) = self.exchanges.iter_mut().find(|e| e.id == id) else { return };
        let unread = exchange.body.len();
        exchange.body.clear();
        let stream = exchange.stream;
        self.h2.credit(stream, unread);
    }

    pub(super) fn credit(&mut self, stream: u32, n: usize) {
        self.h2.credit(stream, n);
    }

    pub(super) fn shutdown(&mut self) {
        self.h2.goaway(Code::NoError);
        self.closing = true;
    }

    pub(super) fn poll_transmit(&mut self, now: Tick, out: &mut [u8]) -> usize {
        self.ack_told = false;
        let mut written = self.h2.poll_transmit(out);
        for exchange in &mut self.exchanges {
            if exchange.is_answered() {
                exchange.answered_at.get_or_insert(now);
            }
            let Some(room) = out.get_mut(written..) else { break };
            exchange.run_acks(now);
            if exchange.out.is_empty() && !exchange.out_end {
                continue;
            }
            let sent =
                self.h2.write_data(exchange.stream, exchange.out.bytes(), exchange.out_end, room);
            exchange.out.consume(sent.taken);
            written = written.saturating_add(sent.written);
        }
        if self.eof && written == 0 {
            // What an answer has left now, it keeps.
            self.exchanges.retain(|e| !e.is_answered());
        }
        self.sweep();
        if self.exchanges.is_empty() && written > 0 {
            self.idle = now;
        }
        written
    }

    /// Forgets requests that are answered to the end and whose body ended, and those whose stream is gone.
    pub(super) fn sweep(&mut self) {
        let h2 = &mut self.h2;
        self.exchanges.retain(|exchange| {
            if !exchange.is_answered() {
                return true;
            }
            if !exchange.out_end {
                // It was cut off and has no answer.
                h2.reset(exchange.stream, Code::Cancel);
                return false;
            }
            let told = !h2.sends(exchange.stream);
            let heard = exchange.body_ended() || !h2.is_open(exchange.stream);
            !(told && heard)
        });
        if self.exchanges.is_empty() {
            self.exchanges = Vec::new();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        (self.h2.is_failed() || self.closing) && self.exchanges.is_empty()
    }
}

fn is_continue(value: &str) -> bool {
    value.eq_ignore_ascii_case("100-continue")
}

/// A final answer with one line of text.
fn send_text(
    h2: &mut Connection,
    exchange: &mut Exchange,
    status: u16,
    fields: &[(&str, &str)],
    is_head: bool,
    text: &str,
) {
    let bare = exchange.bare_refusal && status >= 300;
    let status = Decimal::new(u64::from(status));
    let mut line = String::from(if bare { "" } else { text });
    if !line.is_empty() {
        line.push('\n');
    }
    let length = Decimal::new(line.len() as u64);
    let mut all = Vec::with_capacity(fields.len().saturating_add(3));
    all.push((":status", status.as_str()));
    all.extend_from_slice(fields);
    if !line.is_empty() {
        all.push(("content-type", "text/plain; charset=utf-8"));
        all.push(("content-length", length.as_str()));
    }
    let empty = is_head || line.is_empty();
    h2.send_headers(exchange.stream, &all, empty);
    if !empty {
        exchange.out.push(line.as_bytes());
    }
}
