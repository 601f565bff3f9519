//! How fast the HTTP/2 code moves DATA: a client's end and a server's end in one thread, nothing between them.
//!
//! `cargo run --release --example h2_pump`
#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::time::Instant;

use castkeep::http2::{Config, Connection};
use castkeep::time::Tick;
use castkeep::upload::server::{Event, Server, ServerConfig};

const TOTAL: usize = 2_000_000_000;

fn main() {
    for (chunk, feed) in [(4096, 4096), (16_384, 65_536), (80, 65_536)] {
        let seconds = pump(chunk, feed);
        let rate = TOTAL as f64 / 1e6 / seconds;
        println!("DATA of {chunk} bytes, fed {feed} at a time: {rate:.0} MB/s, both ends together");
    }
}

fn pump(chunk: usize, feed: usize) -> f64 {
    let now = Tick(0);
    let mut client = Connection::client(&Config::default());
    let mut server = Server::new(ServerConfig::default(), now);
    let request =
        [(":method", "POST"), (":scheme", "http"), (":authority", "r"), (":path", "/v2/record")];
    let stream = client.open(&request, false).expect("a first stream");
    let data = vec![b'x'; chunk];
    let mut out = vec![0; 65_536];
    let mut back = vec![0; 4096];
    let mut stored = 0;
    let start = Instant::now();
    while stored < TOTAL {
        let mut written = 0;
        while out.len() - written > chunk + 9 {
            let sent = client.write_data(stream, &data, false, &mut out[written..]);
            written += sent.written;
            if sent.taken == 0 {
                break;
            }
        }
        for piece in out[..written].chunks(feed) {
            server.handle_input(now, piece);
            while let Some(event) = server.poll_event() {
                match event {
                    Event::Request(request) => server.accept(now, request.id, None),
                    Event::Body { id, len } => {
                        stored += server.body(id).len();
                        server.consume(now, id, len);
                    }
                    Event::End { .. } => {}
                }
            }
        }
        loop {
            let n = server.poll_transmit(now, &mut back);
            if n == 0 {
                break;
            }
            let mut rest = &back[..n];
            while client.handle_input(now, &mut rest).is_some() {}
        }
    }
    start.elapsed().as_secs_f64()
}
