//! What the parsers of the wire do with good, split, lenient and hostile input.

use castkeep::error::{Error, PeerFault};
use castkeep::http1::{
    BodyDecoder, BodyKind, HeadError, encode_chunk, parse_request, parse_response, write_request,
    write_response,
};
use castkeep::limits::{ACK_OBJECT_BYTES, HEAD_BYTES, HEAD_FIELDS};
use castkeep::upload::upgrade::{END_FRAME, FrameDecoder, encode_frame};
use castkeep::upload::wire::{
    AckObject, AckParser, Decimal, Features, ResumeHeaders, format_id, parse_id,
};

/// A small generator: the same numbers in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        ((self.0 >> 33) as usize) % n
    }
}

fn decode_all(kind: BodyKind, pieces: &[&[u8]]) -> Result<(Vec<u8>, bool, usize), Error> {
    let mut decoder = BodyDecoder::new(kind);
    let mut body = Vec::new();
    let mut left = 0;
    for piece in pieces {
        let mut rest = *piece;
        loop {
            let p = decoder.decode(rest)?;
            body.extend_from_slice(p.data);
            rest = &rest[p.consumed..];
            if p.consumed == 0 || rest.is_empty() {
                break;
            }
        }
        left += rest.len();
    }
    Ok((body, decoder.is_done(), left))
}

#[test]
fn a_chunked_body_is_the_same_however_it_is_split() {
    let wire = b"5\r\nhello\r\n1;ext=\"x\"\r\n,\r\n06 \r\n world\r\n0\r\nTrailer: x\r\n\r\nNEXT";
    let whole = decode_all(BodyKind::Chunked, &[wire]).unwrap();
    assert_eq!(whole, (b"hello, world".to_vec(), true, 4));
    for at in 0..wire.len() {
        let (a, b) = wire.split_at(at);
        let (body, done, _) = decode_all(BodyKind::Chunked, &[a, b]).unwrap();
        assert_eq!((body.as_slice(), done), (&b"hello, world"[..], true), "split at {at}");
    }
    let bytes: Vec<&[u8]> = wire[..wire.len() - 4].chunks(1).collect();
    assert_eq!(decode_all(BodyKind::Chunked, &bytes).unwrap(), (b"hello, world".to_vec(), true, 0));
}

#[test]
fn broken_chunks_are_refused() {
    for wire in [
        &b"\r\n"[..],
        b"g\r\n",
        b"-1\r\n",
        b"5\nhello",
        b"5\r\nhelloX",
        b"5\r\nhello\rX",
        b"11111111111111111\r\n",
        b"0\r\n\nX",
        b"5\x00\r\nhello",
    ] {
        assert!(decode_all(BodyKind::Chunked, &[wire]).is_err(), "{wire:?}");
    }
    let long = [b"1;".to_vec(), vec![b'x'; 300]].concat();
    assert!(decode_all(BodyKind::Chunked, &[&long]).is_err());
    let trailers = [b"0\r\n".to_vec(), vec![b'x'; 5000]].concat();
    assert!(decode_all(BodyKind::Chunked, &[&trailers]).is_err());
}

#[test]
fn what_is_chunked_can_be_read_back() {
    let mut random = Random(1);
    let data: Vec<u8> = (0..100_000).map(|i| i as u8).collect();
    let mut wire = Vec::new();
    let mut at = 0;
    while at < data.len() {
        let mut out = vec![0; 1 + random.below(5000)];
        let sent = encode_chunk(&data[at..], &mut out);
        wire.extend_from_slice(&out[..sent.written]);
        at += sent.taken;
    }
    wire.extend_from_slice(castkeep::http1::LAST_CHUNK);
    assert_eq!(decode_all(BodyKind::Chunked, &[&wire]).unwrap(), (data, true, 0));
}

#[test]
fn a_body_by_length_ends_there() {
    let (body, done, left) = decode_all(BodyKind::Length(3), &[b"ab", b"cde"]).unwrap();
    assert_eq!((body.as_slice(), done, left), (&b"abc"[..], true, 2));
    let (_, done, _) = decode_all(BodyKind::UntilClose, &[b"ab"]).unwrap();
    assert!(!done);
}

#[test]
fn a_head_is_complete_only_when_it_is() {
    let wire = b"POST /record HTTP/1.1\r\nHost: a:1\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\nrest";
    for at in 0..wire.len() - 4 {
        assert!(matches!(parse_request(&wire[..at]), Ok(None)), "{at}");
    }
    let (head, used) = parse_request(wire).unwrap().unwrap();
    assert_eq!(used, wire.len() - 4);
    assert_eq!((head.method, head.path(), head.body), ("POST", "/record", BodyKind::Chunked));
    assert!(head.expects_continue() && head.keep_alive() && !head.upgrades_to("castkeep/1"));
}

#[test]
fn heads_that_smuggle_or_break_are_refused() {
    let request = |fields: &str| format!("POST / HTTP/1.1\r\n{fields}\r\n");
    for fields in [
        "Content-Length: 1\r\nTransfer-Encoding: chunked\r\n",
        "Content-Length: 1\r\nContent-Length: 2\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 1, 1\r\n",
        "Content-Length: 99999999999999999999\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Host: a\r\nHost: b\r\n",
        "Bad Name: x\r\n",
        "NoColon\r\n",
    ] {
        let result = parse_request(request(fields).as_bytes()).map(|_| ());
        assert_eq!(result, Err(HeadError::Malformed), "{fields}");
    }
    let many: String = (0..HEAD_FIELDS + 1).map(|i| format!("x{i}: y\r\n")).collect();
    let result = parse_request(request(&many).as_bytes()).map(|_| ());
    assert_eq!(result, Err(HeadError::TooLarge));
    let long = request(&format!("x: {}\r\n", "y".repeat(HEAD_BYTES)));
    assert_eq!(parse_request(long.as_bytes()).map(|_| ()), Err(HeadError::TooLarge));
    assert_eq!(parse_request(b"GET / HTTP/3.0\r\n\r\n").map(|_| ()), Err(HeadError::Version));
}

#[test]
fn responses_know_their_bodies() {
    let parse = |text: &str, head: bool| {
        let (r, _) = parse_response(text.as_bytes()).unwrap().unwrap();
        (r.status, r.body(head))
    };
    assert_eq!(
        parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", false),
        (200, BodyKind::Length(5))
    );
    assert_eq!(parse("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true), (200, BodyKind::None));
    assert_eq!(parse("HTTP/1.1 200 OK\r\n\r\n", false), (200, BodyKind::UntilClose));
    assert_eq!(parse("HTTP/1.1 100 Continue\r\n\r\n", false), (100, BodyKind::None));
    assert_eq!(
        parse("HTTP/1.1 503 \r\nTransfer-Encoding: chunked\r\n\r\n", false),
        (503, BodyKind::Chunked)
    );
}

#[test]
fn what_is_written_can_be_parsed() {
    let mut out = [0; 256];
    let fields = [("Host", "r:80"), ("Transfer-Encoding", "chunked")];
    let n = write_request(&mut out, "POST", "/record", &fields).unwrap();
    let (head, used) = parse_request(&out[..n]).unwrap().unwrap();
    assert_eq!((used, head.method, head.fields.get("host")), (n, "POST", Some("r:80")));
    let n = write_response(&mut out, 431, &[("Content-Length", "0")]).unwrap();
    let (head, used) = parse_response(&out[..n]).unwrap().unwrap();
    assert_eq!((used, head.status), (n, 431));
    assert_eq!(write_response(&mut out[..18], 200, &[]), Err(Error::TooBig));
}

#[test]
fn absolute_targets_and_queries_do_not_hide_the_path() {
    for (target, path) in [
        ("/record?x=1", "/record"),
        ("http://h:1/record", "/record"),
        ("http://h", "/"),
        ("/a://b", "/a://b"),
        ("*", "*"),
    ] {
        let wire = format!("GET {target} HTTP/1.1\r\n\r\n");
        let (head, _) = parse_request(wire.as_bytes()).unwrap().unwrap();
        assert_eq!(head.path(), path);
    }
}

#[test]
fn frames_of_the_upgrade_survive_any_split() {
    let mut wire = Vec::new();
    let mut out = vec![0; 4096];
    for part in [&b"one"[..], b"two, longer", &[7; 4000]] {
        let sent = encode_frame(part, &mut out);
        assert_eq!(sent.taken, part.len());
        wire.extend_from_slice(&out[..sent.written]);
    }
    wire.extend_from_slice(&END_FRAME);
    let expected = [&b"onetwo, longer"[..], &[7; 4000]].concat();
    for step in [1, 2, 3, 5, 7, 100, 5000] {
        let mut decoder = FrameDecoder::new();
        let mut body = Vec::new();
        for mut part in wire.chunks(step) {
            while !part.is_empty() {
                let piece = decoder.decode(part).unwrap();
                body.extend_from_slice(piece.data);
                part = &part[piece.consumed..];
            }
        }
        assert_eq!(body, expected, "steps of {step}");
        assert!(decoder.is_done());
        assert!(decoder.decode(b"x").is_err(), "nothing follows the end");
    }
    assert_eq!(encode_frame(b"x", &mut [0; 4]).written, 0);
    assert_eq!(FrameDecoder::new().decode(&[0, 16, 0, 1]), Err(Error::TooBig));
    assert!(FrameDecoder::new().decode(&[0, 16, 0, 0, 1]).is_ok());
}

fn acks(text: &[u8]) -> Result<Vec<AckObject>, Error> {
    let whole = acks_in(&[text]);
    let bytes: Vec<&[u8]> = text.chunks(1).collect();
    assert_eq!(whole, acks_in(&bytes), "split: {}", String::from_utf8_lossy(text));
    whole
}

fn acks_in(pieces: &[&[u8]]) -> Result<Vec<AckObject>, Error> {
    let mut parser = AckParser::new();
    let mut found = Vec::new();
    for piece in pieces {
        let mut rest = *piece;
        while let Some(object) = parser.next(&mut rest)? {
            found.push(object);
        }
    }
    if parser.is_between() { Ok(found) } else { Err(Error::Peer(PeerFault::EndedEarly)) }
}

fn ack(n: u64) -> AckObject {
    AckObject { ack: Some(n), ..AckObject::default() }
}

#[test]
fn ack_objects_are_read_as_go_reads_them() {
    assert_eq!(acks(b"{}").unwrap(), [AckObject::default()]);
    assert_eq!(acks(b"null\n{}null").unwrap().len(), 3);
    assert_eq!(
        acks(b"{\"ack\":1}{\"ack\":2} {\"ack\":3}\r\n\t{\"ack\":4}").unwrap(),
        [ack(1), ack(2), ack(3), ack(4)]
    );
    assert_eq!(acks(b"{\"ACK\":5}").unwrap(), [ack(5)]);
    assert_eq!(acks(b"{ \"Ack\" : 5 , \"ack\" : 6 }").unwrap(), [ack(6)]);
    assert_eq!(acks(b"{\"ack\":null,\"error\":null}").unwrap(), [AckObject::default()]);
    assert_eq!(acks(b"{\"ack\":9223372036854775807}").unwrap(), [ack(i64::MAX as u64)]);
    assert_eq!(acks(b"{\"ack\":-1}").unwrap(), [ack(0)]);
    assert_eq!(
        acks(b"{\"x\":{\"y\":[1,2.5e3,\"}\",null,true,false,{}],\"z\":[]},\"ack\":7}").unwrap(),
        [ack(7)]
    );
    assert_eq!(acks(b"{\"a\\u0063k\":8}").unwrap(), [ack(8)]);
    let object = &acks(b"{\"ack\":1,\"commit\":2,\"sealed\":3,\"drain\":true}").unwrap()[0];
    assert_eq!((object.commit, object.sealed, object.drain), (Some(2), Some(3), true));
    let error = |text: &[u8]| acks(text).unwrap()[0].error.clone();
    assert_eq!(error(b"{\"error\":\"disk full\"}").as_deref(), Some("disk full"));
    assert_eq!(error(b"{\"error\":\"\"}"), None);
    assert_eq!(
        error(b"{\"error\":\"a\\n\\u00e9\\ud83d\\ude00\\ud800x\"}").as_deref(),
        Some("a\né😀\u{fffd}x")
    );
    assert_eq!(error(b"{\"error\":\"\xff\"}").as_deref(), Some("\u{fffd}"));
}

#[test]
fn ack_objects_that_go_refuses_are_refused() {
    for text in [
        &b"{\"ack\":1.5}"[..],
        b"{\"ack\":1e3}",
        b"{\"ack\":\"1\"}",
        b"{\"ack\":[1]}",
        b"{\"ack\":true}",
        b"{\"ack\":9223372036854775808}",
        b"{\"ack\":01}",
        b"{\"commit\":-1}",
        b"{\"error\":1}",
        b"{\"drain\":1}",
        b"{\"ack\" 1}",
        b"{\"ack\":1,}",
        b"{ack:1}",
        b"{\"ack\":1]",
        b"[]",
        b"1",
        b"\"x\"",
        b"nulx",
        b"garbage",
        b"{\"x\":[1,]}",
        b"{\"x\":tru}",
        b"{\"error\":\"\n\"}",
        b"{\"error\":\"\\x\"}",
        b"{\"ack\":1",
        b"nul",
    ] {
        assert!(acks(text).is_err(), "{}", String::from_utf8_lossy(text));
    }
    let mut parser = AckParser::new();
    assert!(parser.next(&mut &b"x"[..]).is_err());
    assert!(parser.next(&mut &b"{}"[..]).is_err(), "broken stays broken");
}

#[test]
fn an_endless_ack_object_is_cut_off() {
    let mut parser = AckParser::new();
    let mut input = &[b"{\"error\":\"".to_vec(), vec![b'x'; ACK_OBJECT_BYTES]].concat()[..];
    assert!(parser.next(&mut input).is_err());
    let deep = [b"{\"x\":".to_vec(), vec![b'['; 4000], vec![b']'; 4000], b"}".to_vec()].concat();
    assert_eq!(acks(&deep).unwrap(), [AckObject::default()]);
}

#[test]
fn what_is_encoded_is_read_back() {
    for object in [
        AckObject::default(),
        ack(0),
        AckObject { commit: Some(u64::MAX >> 1), ..ack(12) },
        AckObject { sealed: Some(9), ..AckObject::default() },
        AckObject { drain: true, ..AckObject::default() },
        AckObject { error: Some("\"\\\n\u{1}\u{9f}é".into()), ..AckObject::default() },
    ] {
        let mut out = [0; 256];
        let n = object.encode(&mut out).unwrap();
        assert_eq!(out[n - 1], b'\n');
        assert_eq!(acks(&out[..n]).unwrap(), [object]);
    }
    let long = AckObject { error: Some("\u{1}".repeat(5000)), ..AckObject::default() };
    assert!(long.encode(&mut [0; ACK_OBJECT_BYTES]).is_some());
    assert!(ack(1).encode(&mut [0; 5]).is_none());
}

#[test]
fn resume_fields_are_all_or_none() {
    let parse = |fields: &'static [(&str, &str)]| {
        ResumeHeaders::parse(|name| fields.iter().find(|(n, _)| *n == name).map(|(_, v)| *v))
    };
    const ID: &str = "00112233445566778899aabbccddeeff";
    assert_eq!(parse(&[]), Ok(None));
    let resume = parse(&[
        ("castkeep-recording", ID),
        ("castkeep-resume", ID),
        ("castkeep-attempt", "2"),
        ("castkeep-offset", "77"),
        ("castkeep-window", "262144"),
    ])
    .unwrap()
    .unwrap();
    assert_eq!((resume.attempt, resume.offset, resume.window), (2, 77, 262144));
    assert_eq!(&format_id(&resume.recording)[..], ID.as_bytes());
    for broken in [
        &[("castkeep-recording", ID)][..],
        &[("castkeep-offset", "1")],
        &[("castkeep-recording", ID), ("castkeep-resume", ID)],
        &[("castkeep-recording", ID), ("castkeep-resume", ID), ("castkeep-attempt", "0")],
        &[("castkeep-recording", ID), ("castkeep-resume", ID), ("castkeep-attempt", "+1")],
        &[("castkeep-recording", "xyz"), ("castkeep-resume", ID), ("castkeep-attempt", "1")],
        &[
            ("castkeep-recording", "00112233445566778899AABBCCDDEEFF"),
            ("castkeep-resume", ID),
            ("castkeep-attempt", "1"),
        ],
        &[
            ("castkeep-recording", ID),
            ("castkeep-resume", ID),
            ("castkeep-attempt", "1"),
            ("castkeep-offset", "18446744073709551616"),
        ],
    ] {
        assert!(parse(broken).is_err(), "{broken:?}");
    }
    assert_eq!(parse_id("00"), None);
}

#[test]
fn small_things() {
    assert_eq!(Decimal::new(0).as_str(), "0");
    assert_eq!(Decimal::new(u64::MAX).as_str(), "18446744073709551615");
    assert!(Features::parse("resume,commit , new").usable());
    assert!(!Features::parse("commit").usable());
}

#[test]
fn random_bytes_do_no_harm() {
    let mut random = Random(7);
    let alphabet = b"{}[]\",:0123456789 \r\nPOST /HTTP.ckx\\u;\xff\x00";
    for _ in 0..3_000 {
        let bytes: Vec<u8> =
            (0..random.below(200)).map(|_| alphabet[random.below(alphabet.len())]).collect();
        let _ = parse_request(&bytes);
        let _ = parse_response(&bytes);
        let _ = decode_all(BodyKind::Chunked, &[&bytes]);
        let _ = acks(&bytes);
    }
}
