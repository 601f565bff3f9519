//! The recorder's connection machine with nothing around it: one thread a connection, bodies thrown away.
//!
//! For conformance tools that only look at the protocol: `cargo run --example h2_bare -- 127.0.0.1:8080`.

#![allow(clippy::disallowed_types, clippy::disallowed_methods)]

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use castkeep::time::Tick;
use castkeep::upload::server::{Event, HowEnded, Request, Server, ServerConfig};

fn main() -> io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8080".into());
    let listener = TcpListener::bind(address)?;
    println!("listening on {}", listener.local_addr()?);
    for stream in listener.incoming() {
        let stream = stream?;
        std::thread::spawn(move || {
            let _ = serve(stream);
        });
    }
    Ok(())
}

fn serve(mut stream: TcpStream) -> io::Result<()> {
    let origin = Instant::now();
    let tick = || Tick(u64::try_from(origin.elapsed().as_micros()).unwrap_or(u64::MAX));
    let mut server = Server::new(ServerConfig::default(), tick());
    let mut input = vec![0u8; 64 * 1024];
    let mut output = vec![0u8; 64 * 1024];
    let mut have = 0usize;
    let mut received = 0u64;
    let mut eof = false;
    stream.set_nodelay(true)?;
    loop {
        let now = tick();
        let taken = server.handle_input(now, &input[..have]);
        input.copy_within(taken..have, 0);
        have -= taken;
        while let Some(event) = server.poll_event() {
            match event {
                Event::Request(Request { id, .. }) => server.accept(now, id, Some(0)),
                Event::Body { id, len } => {
                    received += len as u64;
                    server.consume(now, id, len);
                    server.progress(now, id, received, Some(received));
                }
                Event::End { how: HowEnded::Truncated, .. } => {}
                Event::End { id, .. } => server.seal(now, id, received),
            }
        }
        loop {
            let n = server.poll_transmit(now, &mut output);
            if n == 0 {
                break;
            }
            stream.write_all(&output[..n])?;
        }
        if server.is_closed() {
            return Ok(());
        }
        if server.wants_shutdown() {
            stream.shutdown(Shutdown::Write)?;
        }
        let wait = server.poll_timeout().map_or(Duration::from_secs(60), |at| {
            Duration::from_micros(at.since(tick()).0).max(Duration::from_millis(1))
        });
        if eof {
            std::thread::sleep(wait.min(Duration::from_millis(50)));
            server.handle_timeout(tick());
            continue;
        }
        stream.set_read_timeout(Some(wait))?;
        match stream.read(&mut input[have..]) {
            Ok(0) => {
                eof = true;
                server.handle_eof(tick());
            }
            Ok(n) => have += n,
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                server.handle_timeout(tick());
            }
            Err(_) => {
                eof = true;
                server.handle_lost();
            }
        }
    }
}
