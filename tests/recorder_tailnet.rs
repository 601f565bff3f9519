//! A recorder on a tailnet: peers are who WhoIs says, the certificate comes from the LocalAPI. `tailscaled` is a stand-in, and its
//! nodes have loopback addresses.
#![allow(clippy::disallowed_methods, clippy::disallowed_types)]

#[path = "localapi_support/mod.rs"]
mod localapi;
#[path = "recorder_support/mod.rs"]
mod support;

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use castkeep::recorder::{AllowUpload, Recorder, RecorderConfig, TailscaleTls};
use localapi::{LocalApiServer, Mode, Peer};
use rcgen::{CertificateParams, KeyPair};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use rustls_pki_types::CertificateDer;
use support::*;

/// Where the nodes are.
const LAPTOP: &str = "127.0.0.5";
const SERVER: &str = "127.0.0.6";
const STRANGER: &str = "127.0.0.99";

struct Tailnet {
    dir: Temp,
    api: LocalApiServer,
}

impl Tailnet {
    fn new(name: &str) -> Self {
        let dir = Temp::new(name);
        let api = LocalApiServer::start(&dir.join("tailscaled.sock"));
        api.add_at(LAPTOP, &Peer::new("nLaptopCNTRL", "100.64.0.5"));
        api.add_at(SERVER, &Peer::tagged("nServerCNTRL", "100.64.0.6", "tag:prod"));
        Self { dir, api }
    }

    fn recorder(&self, change: impl FnOnce(&mut RecorderConfig)) -> (Recorder, SocketAddr) {
        start(&self.dir, |c| {
            c.tailscale = Some(self.api.path().to_owned());
            change(c);
        })
    }

    fn dst(&self) -> std::path::PathBuf {
        self.dir.join("dst")
    }
}

/// A connection whose own address is this one.
fn connect_from(from: &str, to: SocketAddr) -> TcpStream {
    let fd = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::STREAM,
        None,
    )
    .unwrap();
    rustix::net::bind(&fd, &SocketAddr::new(from.parse().unwrap(), 0)).unwrap();
    rustix::net::connect(&fd, &to).unwrap();
    let tcp = TcpStream::from(fd);
    tcp.set_read_timeout(Some(GUARD)).unwrap();
    tcp.set_write_timeout(Some(GUARD)).unwrap();
    tcp
}

/// What is answered to an upload that a node begins.
fn status_for(from: &str, to: SocketAddr) -> String {
    let head = begin_v1(&mut connect_from(from, to));
    head.split(' ').nth(1).unwrap().to_owned()
}

fn resume(from: &str, to: SocketAddr, attempt: u64) -> (H2, u32) {
    let mut h2 = H2::new(connect_from(from, to));
    let post = h2.open("POST", "/v2/record", &Resume::new(1, attempt, 0).fields(), false);
    (h2, post)
}

#[test]
fn a_node_is_stored_under_its_id_and_named_in_the_sidecar() {
    let tailnet = Tailnet::new("tailname");
    let (recorder, address) = tailnet.recorder(|_| {});
    assert!(recorder.describe().contains("uploads from tailnet; peers are who tailscaled at"));
    let body = cast(2_000);
    assert!(upload_v1(&mut connect_from(SERVER, address), &body).starts_with("HTTP/1.1 200"));
    let (bytes, sidecar) = only_recording(&tailnet.dst());
    assert!(bytes == body);
    assert_eq!(sidecar["node"], "nServerCNTRL");
    let peer = &sidecar["peer"];
    assert!(peer["address"].as_str().unwrap().starts_with("127.0.0.6:"));
    assert_eq!(peer["identity"], "nServerCNTRL");
    assert_eq!((&peer["verified"], &peer["by"]), (&true.into(), &"whois".into()));
    assert_eq!(peer["name"], "nservercntrl.tail1.ts.net");
    assert_eq!((&peer["user"], &peer["tags"][0]), (&serde_json::Value::Null, &"tag:prod".into()));
    let mut h2 = H2::new(connect_from(LAPTOP, address));
    let post = h2.open("POST", "/v2/record", &[], false);
    h2.send(post, &body, true);
    h2.until_end(post);
    let sidecars =
        eventually("both", || Some(files(&tailnet.dst(), ".json")).filter(|all| all.len() == 2));
    let laptop = sidecars.iter().find(|p| p.to_string_lossy().contains("nLaptopCNTRL")).unwrap();
    let sidecar: serde_json::Value =
        serde_json::from_slice(&std::fs::read(laptop).unwrap()).unwrap();
    assert_eq!(sidecar["peer"]["user"], "alice@example.com");
    assert_eq!(sidecar["peer"]["tags"], serde_json::json!([]));
    // The list says what was verified, and by what.
    let list = |flags: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_castkeep"))
            .arg("ls")
            .args(flags)
            .arg(tailnet.dst())
            .env("CASTKEEP_CONFIG", "")
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(list(&[]).contains("nlaptopcntrl.tail1.ts.net"), "{}", list(&[]));
    let line = list(&["--json", "--node", "nlaptopcntrl.tail1.ts.net"]);
    let listed: serde_json::Value = serde_json::from_str(&line).unwrap();
    let wanted = serde_json::json!({
        "identity": "nLaptopCNTRL", "by": "whois", "name": "nlaptopcntrl.tail1.ts.net",
        "user": "alice@example.com", "tags": [],
    });
    assert_eq!(listed["parts"][0]["verified"], wanted);
}

#[test]
fn a_node_that_tailscaled_passes_on_is_known_by_its_port() {
    let tailnet = Tailnet::new("tailport");
    let (_recorder, address) = tailnet.recorder(|_| {});
    let mut tcp = connect_from("127.0.0.1", address);
    // Only now, as tailscaled does: behind the connect, before the first byte.
    let port = tcp.local_addr().unwrap().to_string();
    tailnet.api.add_at(&port, &Peer::new("nFarCNTRL", "100.64.0.8"));
    assert!(upload_v1(&mut tcp, &cast(500)).starts_with("HTTP/1.1 200"));
    assert_eq!(only_recording(&tailnet.dst()).1["node"], "nFarCNTRL");
    assert_eq!(status_for("127.0.0.1", address), "403", "its neighbour is somebody else");
}

#[test]
fn who_is_no_node_is_refused_and_goes_elsewhere() {
    let tailnet = Tailnet::new("tailunknown");
    let (recorder, address) = tailnet.recorder(|_| {});
    assert_eq!(status_for(STRANGER, address), "403");
    let (mut h2, post) = resume(STRANGER, address, 1);
    assert_eq!(h2.status(post), 403);
    assert_eq!(status_for(LAPTOP, address), "100");
    // castkeep's client, from loopback, which is no node here: its next recorder takes it.
    let other = Temp::new("tailnext");
    let (_other_recorder, next) = start(&other, |_| {});
    let output = Command::new(env!("CARGO_BIN_EXE_castkeep"))
        .args(["record", "--recorders", &format!("{address},{next}"), "--", "echo", "went on"])
        .env("CASTKEEP_CONFIG", "")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (cast, _) = only_recording(&other.join("dst"));
    assert!(String::from_utf8_lossy(&cast).contains("went on"));
    drop(recorder);
    assert!(!tailnet.dst().join("127.0.0.1").exists(), "a stranger was stored");
}

#[test]
fn tags_say_who_may_upload() {
    let tailnet = Tailnet::new("tailtags");
    let allow: AllowUpload = "tailnet:tag:prod".parse().unwrap();
    let (_recorder, address) = tailnet.recorder(|c| c.allow_upload = Some(allow));
    assert_eq!(status_for(SERVER, address), "100");
    assert_eq!(status_for(LAPTOP, address), "403");
    assert_eq!(status_for(STRANGER, address), "403");
    // Beside it, who is no node is let in by what was said, and is called by its address.
    let tailnet = Tailnet::new("tailbeside");
    let allow: AllowUpload = "tailnet,127.0.0.99".parse().unwrap();
    let (_recorder, address) = tailnet.recorder(|c| c.allow_upload = Some(allow));
    assert!(upload_v1(&mut connect_from(STRANGER, address), &cast(500)).contains(" 200 "));
    let (_, sidecar) = only_recording(&tailnet.dst());
    assert_eq!((&sidecar["node"], &sidecar["peer"]["verified"]), (&STRANGER.into(), &false.into()));
}

#[test]
fn while_tailscaled_does_not_answer_nobody_is_taken_in_and_nothing_is_cut() {
    let mut tailnet = Tailnet::new("taildown");
    let (recorder, address) = tailnet.recorder(|c| {
        c.metrics_listen = vec!["127.0.0.1:0".parse().unwrap()];
    });
    let metrics = recorder.metrics_addresses()[0];
    let get = |path: &str| exchange(metrics, format!("GET {path} HTTP/1.1\r\n\r\n").as_bytes());
    assert!(get("/readyz").starts_with("HTTP/1.1 200"));
    let mut running = connect_from(SERVER, address);
    assert!(begin_v1(&mut running).starts_with("HTTP/1.1 100"));
    write_chunk(&mut running, &cast(100));
    tailnet.api.stop();
    assert_eq!(status_for(LAPTOP, address), "503");
    assert_eq!(status_for(STRANGER, address), "503");
    // The probe says so already, so that clients need not try.
    let mut h2 = H2::new(connect_from(LAPTOP, address));
    let probe = h2.open("HEAD", "/v2/record", &[], true);
    assert_eq!(h2.status(probe), 503);
    assert!(get("/readyz").contains("tailscaled does not answer"));
    // One that hangs is given a time that is shorter than the clients'.
    tailnet.api.start_again();
    tailnet.api.set_mode(Mode::Silent);
    assert_eq!(status_for(LAPTOP, address), "503");
    tailnet.api.set_mode(Mode::Raw(b"{\"Node\":{\"StableID\":\"nX\"}}".to_vec()));
    assert_eq!(status_for(LAPTOP, address), "503");
    let page = get("/metrics");
    assert!(page.contains("castkeep_whois_total{said=\"failed\"} 5"), "{page}");
    tailnet.api.set_mode(Mode::Honest);
    assert_eq!(status_for(LAPTOP, address), "100");
    // What was there before went on all the time.
    write_chunk(&mut running, b"[1.0,\"o\",\"still here\"]\n");
    running.write_all(b"0\r\n\r\n").unwrap();
    assert!(read_head(&mut running).starts_with("HTTP/1.1 200"));
}

#[test]
fn only_the_node_that_began_a_recording_goes_on_with_it() {
    let tailnet = Tailnet::new("tailresume");
    let (recorder, address) = tailnet.recorder(|_| {});
    let (mut first, post) = resume(SERVER, address, 1);
    assert_eq!(first.status(post), 200);
    let body = cast(1_000);
    first.send(post, &body, false);
    first.until_text(post, &format!("\"commit\":{}", body.len()));
    // The right secret does not help another node.
    let (mut other, post) = resume(LAPTOP, address, 2);
    assert_eq!(other.status(post), 403);
    // The node from another of its addresses is the same node.
    tailnet.api.add_at("127.0.0.7", &Peer::tagged("nServerCNTRL", "100.64.0.6", "tag:prod"));
    let (mut same, post) = resume("127.0.0.7", address, 3);
    assert_eq!(same.status(post), 200);
    // Also after the recorder was killed.
    recorder.abort();
    let mut config = RecorderConfig::new(tailnet.dst());
    config.tailscale = Some(tailnet.api.path().to_owned());
    // A program that another test starts at this moment holds the lock until it is one.
    let recorder = eventually("the lock", || Recorder::start(config.clone()).ok());
    let address = recorder.addresses()[0];
    let (mut other, post) = resume(LAPTOP, address, 4);
    assert_eq!(other.status(post), 403);
    let (mut same, post) = resume(SERVER, address, 5);
    assert_eq!(same.status(post), 200);
    // Its address given to another node: it is another node.
    tailnet.api.add_at(SERVER, &Peer::tagged("nOtherCNTRL", "100.64.0.6", "tag:prod"));
    let (mut other, post) = resume(SERVER, address, 6);
    assert_eq!(other.status(post), 403);
}

// ---- the certificate ----

const NAME: &str = "rec.tail1.ts.net";

/// A self-signed certificate for a name, valid around now or long over: PEM chain, PEM key, and what to trust.
fn certificate(
    name: &str,
    years: std::ops::Range<i32>,
) -> (String, String, CertificateDer<'static>) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = rcgen::date_time_ymd(years.start, 1, 1);
    params.not_after = rcgen::date_time_ymd(years.end, 1, 1);
    let certificate = params.self_signed(&key).unwrap();
    (certificate.pem(), key.serialize_pem(), certificate.der().clone())
}

/// Whether the recorder shows this certificate.
fn shows(address: SocketAddr, trusted: &CertificateDer<'static>) -> bool {
    let mut roots = RootCertStore::empty();
    roots.add(trusted.clone()).unwrap();
    let config =
        ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
    let connection = ClientConnection::new(Arc::new(config), NAME.try_into().unwrap()).unwrap();
    let mut tls = StreamOwned::new(connection, connect_from(LAPTOP, address));
    // The handshake, and no more.
    if tls.flush().is_err() {
        return false;
    }
    let shown = tls.conn.peer_certificates().unwrap()[0].clone();
    shown == *trusted
}

fn with_certificate(tailnet: &Tailnet, period: Duration) -> RecorderConfig {
    let mut config = RecorderConfig::new(tailnet.dst());
    config.tailscale = Some(tailnet.api.path().to_owned());
    config.tailscale_tls = Some(TailscaleTls {
        socket: tailnet.api.path().to_owned(),
        domain: NAME.into(),
        client_ca: None,
    });
    config.certificate_period = period;
    config.metrics_listen = vec!["127.0.0.1:0".parse().unwrap()];
    config
}

#[test]
fn the_certificate_comes_from_tailscaled_and_the_last_good_one_stays() {
    let tailnet = Tailnet::new("tailcert");
    let first = certificate(NAME, 2020..2100);
    tailnet.api.set_certificate(NAME, &first.0, &first.1);
    let period = Duration::from_millis(20);
    let recorder = Recorder::start(with_certificate(&tailnet, period)).unwrap();
    let (address, metrics) = (recorder.addresses()[0], recorder.metrics_addresses()[0]);
    assert!(shows(address, &first.2));
    let second = certificate(NAME, 2020..2101);
    let failures = || {
        let page = exchange(metrics, b"GET /metrics HTTP/1.1\r\n\r\n");
        let line = page.lines().find(|l| l.starts_with("castkeep_certificate_failures_total "));
        line.unwrap().rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    let fails_again = |what: &str| {
        let before = failures();
        eventually(what, || (failures() > before + 1).then_some(()));
        assert!(shows(address, &first.2), "{what}");
    };
    let other_name = certificate("other.tail1.ts.net", 2020..2100);
    tailnet.api.set_certificate(NAME, &other_name.0, &other_name.1);
    fails_again("a certificate for another name");
    let over = certificate(NAME, 2019..2020);
    tailnet.api.set_certificate(NAME, &over.0, &over.1);
    fails_again("a certificate that has ended");
    tailnet.api.set_certificate(NAME, &second.0, &first.1);
    fails_again("a key that does not belong to it");
    tailnet.api.set_certificate(NAME, "", "");
    fails_again("nothing");
    tailnet.api.set_certificate(NAME, &second.0, &second.1);
    tailnet.api.set_mode(Mode::Status(500, "acme: too many certificates"));
    // WhoIs is asked of the same tailscaled, so nobody looks at what is shown meanwhile.
    let before = failures();
    eventually("500", || (failures() > before + 1).then_some(()));
    tailnet.api.set_mode(Mode::Chunked);
    eventually("the new certificate", || shows(address, &second.2).then_some(()));
}

#[test]
fn a_hangup_asks_for_the_certificate_and_a_stop_does_not_wait_for_it() {
    let tailnet = Tailnet::new("tailhup");
    let (first, second) = (certificate(NAME, 2020..2100), certificate(NAME, 2020..2101));
    tailnet.api.set_certificate(NAME, &first.0, &first.1);
    let socket = format!("--tailscale={}", tailnet.api.path().display());
    let mut serve = Serve::start(&tailnet.dst(), &[&socket, "--tls-from-tailscale", NAME]);
    assert!(shows(serve.address, &first.2));
    tailnet.api.set_certificate(NAME, &second.0, &second.1);
    serve.signal("HUP");
    let address = serve.address;
    eventually("the new certificate", || shows(address, &second.2).then_some(()));
    let asked = || tailnet.api.asked().iter().filter(|t| t.contains("/cert/")).count();
    let before = asked();
    tailnet.api.set_mode(Mode::Silent);
    serve.signal("HUP");
    eventually("the question", || (asked() > before).then_some(()));
    serve.signal("TERM");
    assert!(serve.wait().success());
}

#[test]
fn who_waits_for_the_first_certificate_can_be_ended() {
    let tailnet = Tailnet::new("tailstart");
    tailnet.api.set_mode(Mode::Silent);
    let socket = format!("--tailscale={}", tailnet.api.path().display());
    let mut child = Command::new(env!("CARGO_BIN_EXE_castkeep"))
        .args(["serve", "--listen", "127.0.0.1:0", "--tls-from-tailscale", NAME, &socket, "--dst"])
        .arg(tailnet.dst())
        .env("CASTKEEP_CONFIG", "")
        .spawn()
        .unwrap();
    eventually("the question", || (!tailnet.api.asked().is_empty()).then_some(()));
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-s", "TERM", &pid]).status().unwrap().success());
    let status = eventually("the end", || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(1));
    assert!(!tailnet.dst().exists(), "it opened its storage before it could serve");
}

#[test]
fn a_recorder_without_a_certificate_does_not_start_and_says_why() {
    let tailnet = Tailnet::new("tailnocert");
    let error = Recorder::start(with_certificate(&tailnet, GUARD)).unwrap_err().to_string();
    assert!(error.contains(NAME) && error.contains("invalid domain"), "{error}");
    tailnet.api.set_mode(Mode::Status(403, "cert access denied"));
    let error = Recorder::start(with_certificate(&tailnet, GUARD)).unwrap_err().to_string();
    assert!(error.contains("cert access denied"), "{error}");
    assert!(error.contains("TS_PERMIT_CERT_UID"), "{error}");
}

#[test]
fn what_contradicts_itself_is_refused_with_what_to_do() {
    let dir = Temp::new("tailflags");
    let dst = dir.join("dst");
    let dst = dst.to_str().unwrap();
    for (flags, status, wanted) in [
        (&["--allow-upload", "tailnet"][..], 1, "--tailscale"),
        (&["--tls-from-tailscale", NAME, "--tls-cert", "x"], 2, "there can be one certificate"),
        (
            &["--tls-from-tailscale", NAME, "--tailscale=/nonexistent/sock"],
            1,
            "does tailscaled run?",
        ),
        (&["--tailscale", "/sock"], 2, "`/sock` is too much"),
    ] {
        let args = [&["--dst", dst, "--listen", "127.0.0.1:0"], flags].concat();
        let (code, stderr) = serve_fails(&args);
        assert_eq!(code, Some(status), "{flags:?}: {stderr}");
        assert!(stderr.contains(wanted), "{flags:?}: {stderr}");
    }
}

#[test]
fn a_silent_connection_costs_no_question_and_goes_away() {
    let tailnet = Tailnet::new("tailsilent");
    let (_recorder, address) = tailnet.recorder(|c| c.head_time = Duration::from_millis(100));
    let asked = tailnet.api.whois_count();
    let mut tcp = connect_from(LAPTOP, address);
    assert_eq!(tcp.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(tailnet.api.whois_count(), asked);
}

// ---- the document ----

/// The commands of docs/tailnet.md that begin so, lines joined.
fn commands(begin: &str) -> Vec<String> {
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tailnet.md"));
    let text = text.unwrap().replace("\\\n", " ");
    let mut in_shell = false;
    let mut commands = Vec::new();
    for line in text.lines() {
        match line {
            "```sh" => in_shell = true,
            "```" => in_shell = false,
            _ if in_shell && line.starts_with(begin) => commands.push(line.to_owned()),
            _ => {}
        }
    }
    commands
}

#[test]
fn the_documents_commands_start_a_recorder() {
    let tailnet = Tailnet::new("taildoc");
    let shown = certificate("recorder.tail1234.ts.net", 2020..2100);
    tailnet.api.set_certificate("recorder.tail1234.ts.net", &shown.0, &shown.1);
    let commands = commands("castkeep serve ");
    assert!(commands.len() >= 3, "{commands:?}");
    for (n, command) in commands.iter().enumerate() {
        let mut serve = Command::new(env!("CARGO_BIN_EXE_castkeep"));
        serve.env("CASTKEEP_CONFIG", "");
        for word in command.split_whitespace().skip(1) {
            let word = word.trim_matches('\'').replace("100.64.0.9:", "127.0.0.1:");
            let word = word.replace("[fd7a:115c:a1e0::9]:", "127.0.0.1:");
            let port = word.replace("127.0.0.1:443", "127.0.0.1:0");
            serve.arg(match port.replace("127.0.0.1:80", "127.0.0.1:0").as_str() {
                "/var/lib/castkeep" | "/recordings" => {
                    tailnet.dir.join(&n.to_string()).display().to_string()
                }
                word if word.starts_with("--tailscale") => {
                    format!("--tailscale={}", tailnet.api.path().display())
                }
                word => word.to_owned(),
            });
        }
        let mut serve = Serve::spawn(&mut serve);
        assert_eq!(status_for(LAPTOP, serve.address), "100", "{command}");
        serve.signal("TERM");
        assert!(serve.wait().success(), "{command}");
    }
}

#[test]
fn the_documents_policy_is_one_and_compiles() {
    let dir = Temp::new("tailpolicy");
    let text = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tailnet.md"));
    let text = text.unwrap();
    let policy = text.split("```hujson\n").nth(1).unwrap().split("```").next().unwrap();
    std::fs::write(dir.join("policy.hujson"), policy).unwrap();
    let nodes = r#"{"castkeepNodes":1,"nodes":[
        {"id":"n1","name":"web1.tail1.ts.net","addresses":["100.64.0.7"],"tags":["tag:server"]},
        {"id":"n2","name":"recorder.tail1.ts.net","addresses":["100.64.0.9"],"tags":["tag:recorder"]},
        {"id":"n3","name":"laptop.tail1.ts.net","addresses":["100.64.0.5"],
         "user":"alice@example.com","userID":1}]}"#;
    std::fs::write(dir.join("nodes.json"), nodes).unwrap();
    let commands = commands("castkeep policy ");
    assert_eq!(commands.len(), 1, "{commands:?}");
    let output = Command::new(env!("CARGO_BIN_EXE_castkeep"))
        .args(commands[0].split_whitespace().skip(1).take_while(|word| !word.starts_with('>')))
        .current_dir(&dir.0)
        .env("CASTKEEP_CONFIG", "")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let compiled: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(compiled["rules"][0]["action"]["recorders"][0], "100.64.0.9:80");
}
