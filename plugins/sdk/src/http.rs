//! HTTP through the host. A loader takes `&dyn Http`, so that tests answer instead of a network.

use crate::Failure;
pub use crate::bindings::loader::substratus::plugin::http::{Error, Method, Request, Response};
use crate::fingerprint::Fingerprint;

/// Something that answers requests: the host, or a recording.
pub trait Http {
    /// One exchange. Any status is an answer.
    fn send(&self, request: &Request) -> Result<Response, Error>;
}

/// The host's HTTP.
pub struct HostHttp;

impl Http for HostHttp {
    fn send(&self, request: &Request) -> Result<Response, Error> {
        crate::bindings::loader::substratus::plugin::http::send(request)
    }
}

/// A GET that follows redirects; `auth` names a secret of the manifest.
pub fn get(url: impl Into<String>, auth: Option<&str>) -> Request {
    Request {
        method: Method::Get,
        url: url.into(),
        headers: vec![("accept".into(), "application/json".into())],
        body: None,
        auth: auth.map(Into::into),
        follow: true,
    }
}

/// The first header of that name (lower case).
pub fn header<'a>(response: &'a Response, name: &str) -> Option<&'a str> {
    response.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
}

/// No answer came: what that means for the load.
pub fn no_answer(error: Error, doing: &str) -> Failure {
    match error {
        Error::Denied(why) => Failure::Unsupported(format!("{doing}: refused by the host: {why}")),
        Error::Limit(why) => Failure::Unsupported(format!("{doing}: a limit was hit: {why}")),
        Error::Unavailable(why) => Failure::Unavailable(format!("{doing}: {why}")),
        Error::Invalid(why) => Failure::Internal(format!("{doing}: {why}")),
    }
}

/// Asks for the head of a file: its size, where the server tells, and its version into `version`. A server that only answers to GET
/// tells nothing.
pub fn look(http: &dyn Http, url: &str, auth: Option<&str>, version: &mut Fingerprint) -> Result<Option<u64>, Failure> {
    let ask = Request { method: Method::Head, headers: vec![("accept-encoding".into(), "identity".into())], ..get(url, auth) };
    // What follows the question mark may be secret.
    let shown = url.split_once(['?', '#']).map_or(url, |(url, _)| url);
    let response = http.send(&ask).map_err(|error| no_answer(error, &format!("asking for {shown}")))?;
    let answered = || format!("{shown}: the server answered {}", response.status);
    match response.status {
        200 => {
            for name in ["etag", "last-modified", "content-length", "x-linked-etag"] {
                version.take(header(&response, name).unwrap_or_default());
            }
            // What is sent compressed has another size.
            let encoded = header(&response, "content-encoding").is_some_and(|encoding| encoding != "identity");
            Ok(header(&response, "content-length").and_then(|size| size.parse().ok()).filter(|_| !encoded))
        }
        404 | 410 => Err(Failure::NotFound(answered())),
        401 | 403 => Err(Failure::NeedsAuth(format!(
            "{}; give the env HF_TOKEN from a Secret where it is a host of Hugging Face, else a URL that needs none",
            answered()
        ))),
        429 => Err(Failure::RateLimited(header(&response, "retry-after").and_then(|seconds| seconds.trim().parse().ok()))),
        500..=599 => Err(Failure::Unavailable(answered())),
        _ => Ok(None),
    }
}

/// Percent-encodes everything but unreserved characters, as one segment of a path or one value of a query.
pub fn encode_segment(text: &str) -> String {
    encode(text, false)
}

/// Percent-encodes a path, keeping its `/`.
pub fn encode_path(path: &str) -> String {
    encode(path, true)
}

fn encode(text: &str, keep_slash: bool) -> String {
    use std::fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(char::from(byte)),
            b'/' if keep_slash => out.push('/'),
            // Writing into a String cannot fail.
            _ => _ = write!(out, "%{byte:02X}"),
        }
    }
    out
}

/// Undoes percent-encoding; `None` where it is broken or not UTF-8.
pub fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut out = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let high = char::from(bytes.next()?).to_digit(16)?;
            let low = char::from(bytes.next()?).to_digit(16)?;
            out.push(u8::try_from(high * 16 + low).ok()?);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding_both_ways() {
        assert_eq!(encode_segment("refs/pr/2"), "refs%2Fpr%2F2");
        assert_eq!(encode_path("a b/ü+#?.bin"), "a%20b/%C3%BC%2B%23%3F.bin");
        assert_eq!(decode("refs%2Fpr%2f2").as_deref(), Some("refs/pr/2"));
        assert_eq!(decode("50%"), None);
        assert_eq!(decode("%zz"), None);
        assert_eq!(decode("%ff"), None);
    }

    #[test]
    fn only_a_passing_failure_is_retried() {
        assert!(matches!(no_answer(Error::Unavailable("x".into()), "asking"), Failure::Unavailable(_)));
        assert!(matches!(no_answer(Error::Denied("x".into()), "asking"), Failure::Unsupported(_)));
    }
}
