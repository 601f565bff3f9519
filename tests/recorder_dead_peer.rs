//! A client vanishes without a word: its machine lost power, or its network. In network namespaces of the test's own.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "recorder_support/mod.rs"]
mod support;

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use support::*;

/// A network of its own. It lives as long as a process in it.
struct Net(Child);

impl Net {
    /// None: this machine makes no network namespaces for us; why was printed.
    fn new() -> Option<Self> {
        let mut holder = Command::new("unshare")
            .args(["--net", "sh", "-c", "ip link set lo up && echo made && exec cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("unshare, of util-linux");
        let mut line = String::new();
        BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let net = Self(holder);
        (line == "made\n").then_some(net)
    }

    fn path(&self) -> String {
        format!("/proc/{}/ns/net", self.0.id())
    }

    fn ip(&self, command: &str) -> bool {
        let mut nsenter = Command::new("nsenter");
        nsenter.arg(format!("--net={}", self.path())).arg("ip").args(command.split(' '));
        nsenter.status().expect("nsenter, of util-linux").success()
    }

    /// The calling thread, and every thread and child that it makes, is in this network from here on.
    fn enter(&self) {
        let file = File::open(self.path()).unwrap();
        let network = Some(LinkNameSpaceType::Network);
        move_into_link_name_space(std::os::fd::AsFd::as_fd(&file), network).unwrap();
    }

    /// A connection out of this network.
    fn connect(&self, to: SocketAddr) -> TcpStream {
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                self.enter();
                connect(to)
            });
            inside.join().unwrap()
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Two networks and a cable. None: it cannot be tested on this machine.
fn networks() -> Option<(Net, Net)> {
    let made = || {
        let (here, there) = (Net::new()?, Net::new()?);
        let peer = format!("link add here type veth peer name there netns {}", there.0.id());
        let both = here.ip(&peer)
            && here.ip("addr add 192.0.2.1/24 dev here")
            && here.ip("link set here up")
            && there.ip("addr add 192.0.2.2/24 dev there")
            && there.ip("link set there up");
        both.then_some((here, there))
    };
    let made = made();
    if made.is_none() {
        eprintln!("skipped: network namespaces with veth need root and the kernel's veth");
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "a skip is a failure");
    }
    made
}

/// `castkeep_connections` of the metrics.
fn connections(metrics: SocketAddr) -> u64 {
    let page = exchange(metrics, b"GET /metrics HTTP/1.1\r\nHost: m\r\n\r\n");
    let line = page.lines().find_map(|l| l.strip_prefix("castkeep_connections "));
    line.unwrap_or_else(|| panic!("{page}")).parse().unwrap()
}

fn upgrade(mut tcp: TcpStream, resume: &Resume) -> (TcpStream, String) {
    let mut head = "POST /castkeep/1/record HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\n\
                    Upgrade: castkeep/1\r\n"
        .to_owned();
    for (name, value) in resume.fields() {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    write!(tcp, "{head}\r\n").unwrap();
    let head = read_head(&mut tcp);
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    (tcp, head)
}

fn frames(parts: &[&[u8]]) -> Vec<u8> {
    let with_length = |p: &&[u8]| [&(p.len() as u32).to_be_bytes()[..], p].concat();
    parts.iter().flat_map(with_length).collect()
}

/// Reads until the recorder said this.
fn read_until(tcp: &mut TcpStream, what: &str) {
    let (mut said, mut byte) = (Vec::new(), [0]);
    while !String::from_utf8_lossy(&said).contains(what) {
        assert_eq!(tcp.read(&mut byte).unwrap(), 1, "no {what}");
        said.push(byte[0]);
    }
}

#[test]
fn a_client_that_vanishes_is_noticed_and_can_come_back() {
    let Some((here, there)) = networks() else { return };
    here.enter();
    let dir = Temp::new("vanished");
    let dst = dir.join("dst");
    const DEAD_AFTER: Duration = Duration::from_secs(3);
    let (recorder, address) = start(&dir, |c| {
        c.listen = vec!["192.0.2.1:0".parse::<SocketAddr>().unwrap().into()];
        c.allow_upload = Some("192.0.2.0/24".parse().unwrap());
        c.metrics_listen = vec!["127.0.0.1:0".parse().unwrap()];
        c.user_timeout = DEAD_AFTER;
    });
    let metrics = recorder.metrics_addresses()[0];
    let body = cast(30_000);
    let half = body[..20_000].iter().rposition(|b| *b == b'\n').unwrap() + 1;
    let commit = format!("\"commit\":{half}}}");

    // One of each protocol, each told that its bytes came before it falls silent.
    let mut v1 = there.connect(address);
    assert!(begin_v1(&mut v1).starts_with("HTTP/1.1 100"));
    write_chunk(&mut v1, &body[..half]);
    let mut v2 = H2::new(there.connect(address));
    let stock = v2.open("POST", "/v2/record", &[], false);
    v2.send(stock, &body[..half], false);
    v2.until_text(stock, &format!("\"ack\":{half}"));
    let mut with_commit = H2::new(there.connect(address));
    let resume = Resume::new(1, 1, 0);
    let post = with_commit.open("POST", "/v2/record", &resume.fields(), false);
    with_commit.send(post, &body[..half], false);
    with_commit.until_text(post, &commit);
    let (mut upgraded, _) = upgrade(there.connect(address), &Resume::new(2, 1, 0));
    upgraded.write_all(&frames(&[&body[..half]])).unwrap();
    read_until(&mut upgraded, &commit);
    // And one that has not asked for anything yet.
    let silent = there.connect(address);
    eventually("all bytes stored", || {
        let sizes = files(&dst, ".cast").iter().map(|f| f.metadata().unwrap().len()).sum::<u64>();
        (sizes == 4 * half as u64 && connections(metrics) == 5).then_some(())
    });

    // From here on what is sent there meets nobody, and nothing says so.
    assert!(there.ip("addr del 192.0.2.2/24 dev there"));
    let vanished = Instant::now();
    eventually("every connection noticed", || (connections(metrics) == 0).then_some(()));
    let took = vanished.elapsed();
    println!("noticed after {took:?}");
    // docs/protocol.md §6: at most the time plus a third, or plus the pause between two acks of stock v2; and the machine's own.
    let bound = DEAD_AFTER + Duration::from_secs(5) + Duration::from_secs(5);
    assert!(took >= Duration::from_secs(1) && took < bound, "{took:?}");

    // Stock uploads are closed, with everything that came; the others wait for their clients.
    let sidecars = eventually("two sidecars", || {
        let found = files(&dst, ".json");
        (found.len() == 2).then_some(found)
    });
    for sidecar in sidecars {
        let bytes = std::fs::read(sidecar.with_extension("cast")).unwrap();
        assert!(bytes == body[..half]);
        let sidecar: serde_json::Value =
            serde_json::from_slice(&std::fs::read(sidecar).unwrap()).unwrap();
        assert_eq!(sidecar["how"], "truncated");
    }
    drop((v1, v2, with_commit, upgraded, silent));
    assert!(there.ip("addr add 192.0.2.2/24 dev there"));
    let mut h2 = H2::new(there.connect(address));
    let resume = Resume::new(1, 2, half as u64);
    let post = h2.open("POST", "/v2/record", &resume.fields(), false);
    assert_eq!(h2.field(post, "castkeep-commit"), Some(half.to_string()));
    h2.send(post, &continuation(&body, &resume.id, half), true);
    h2.until_text(post, &format!("\"sealed\":{}}}", body.len()));
    let resume = Resume::new(2, 2, half as u64);
    let (mut upgraded, head) = upgrade(there.connect(address), &resume);
    assert!(head.to_ascii_lowercase().contains(&format!("castkeep-commit: {half}\r\n")), "{head}");
    upgraded.write_all(&frames(&[&continuation(&body, &resume.id, half), &[]])).unwrap();
    read_until(&mut upgraded, &format!("\"sealed\":{}}}", body.len()));
    let whole = files(&dst, ".cast").iter().filter(|f| std::fs::read(f).unwrap() == body).count();
    assert_eq!(whole, 2);
}
