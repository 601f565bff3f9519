//! What a request gets: docs/protocol.md §1.

use super::{Kind, Protocol};
use crate::limits::EVENT_BODY_BYTES;
use crate::upload::wire::{PATH_EVENT, PATH_UPGRADE, PATH_V1, PATH_V2, ResumeHeaders};

/// A request head, whatever the version.
pub(super) struct Head<'a, F: Fn(&str) -> Option<&'a str>> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    pub(super) http2: bool,
    pub(super) find: F,
    /// It has `Origin` or `Sec-Fetch-Site`.
    pub(super) from_browser: bool,
    /// It asks for `Upgrade: castkeep/1`.
    pub(super) upgrade: bool,
    /// HTTP/1.1: it promises a body.
    pub(super) has_body: bool,
    pub(super) content_length: Option<u64>,
    pub(super) extension: bool,
    pub(super) available: Result<(), &'static str>,
}

/// What becomes of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Route {
    /// The shell decides.
    Ask(Kind),
    /// It is refused.
    Refuse { status: u16, text: &'static str, allow: Option<&'static str> },
    /// `HEAD /v2/record`: 200 with the features.
    Probe,
    /// `HEAD /v2/event`: 200.
    EventProbe,
    /// `GET /`.
    Banner,
}

const fn refuse(status: u16, text: &'static str) -> Route {
    Route::Refuse { status, text, allow: None }
}

const fn not_allowed(allow: &'static str) -> Route {
    Route::Refuse { status: 405, text: "this method is not for this path", allow: Some(allow) }
}

/// Decides.
pub(super) fn route<'a, F: Fn(&str) -> Option<&'a str>>(head: &Head<'a, F>) -> Route {
    if head.from_browser {
        return refuse(403, "this is not for browsers");
    }
    match (head.path, head.method) {
        (PATH_V2, "HEAD" | "POST") if !head.http2 => {
            refuse(505, "this path is for HTTP/2 with prior knowledge")
        }
        (PATH_V2, "HEAD") => match head.available {
            Ok(()) => Route::Probe,
            Err(why) => refuse(503, why),
        },
        (PATH_V2, "POST") => {
            if !head.extension {
                return record(head, Protocol::V2, None);
            }
            match ResumeHeaders::parse(&head.find) {
                Ok(None) => record(head, Protocol::V2, None),
                Ok(resume) => record(head, Protocol::V2Commit, resume),
                Err(_) => refuse(400, "a castkeep field is malformed or missing"),
            }
        }
        (PATH_V2, _) => not_allowed("HEAD, POST"),
        (PATH_V1, "POST") => record(head, Protocol::V1, None),
        (PATH_V1, _) => not_allowed("POST"),
        (PATH_UPGRADE, _) if !head.extension => refuse(404, "no such path"),
        (PATH_UPGRADE, "POST") => upgrade(head),
        (PATH_UPGRADE, _) => not_allowed("POST"),
        (PATH_EVENT, "HEAD") => Route::EventProbe,
        (PATH_EVENT, "POST") => {
            if head.content_length.is_some_and(|n| n > EVENT_BODY_BYTES as u64) {
                return refuse(413, "the event is too large");
            }
            Route::Ask(Kind::Event)
        }
        (PATH_EVENT, _) => not_allowed("HEAD, POST"),
        ("/", "GET" | "HEAD") => Route::Banner,
        ("/", _) => not_allowed("GET, HEAD"),
        _ => refuse(404, "no such path"),
    }
}

fn record<'a, F: Fn(&str) -> Option<&'a str>>(
    head: &Head<'a, F>,
    protocol: Protocol,
    resume: Option<ResumeHeaders>,
) -> Route {
    match head.available {
        Ok(()) => Route::Ask(Kind::Record { protocol, resume }),
        Err(why) => refuse(503, why),
    }
}

fn upgrade<'a, F: Fn(&str) -> Option<&'a str>>(head: &Head<'a, F>) -> Route {
    if head.http2 {
        return refuse(505, "this path is for HTTP/1.1");
    }
    if !head.upgrade {
        return refuse(426, "this path needs Upgrade: castkeep/1");
    }
    if head.has_body {
        return refuse(400, "a request to upgrade has no body");
    }
    match ResumeHeaders::parse(&head.find) {
        Ok(Some(resume)) => record(head, Protocol::Upgrade, Some(resume)),
        _ => refuse(400, "a castkeep field is malformed or missing"),
    }
}
