//! What a server's answer to a request for bytes means. Pure: looks at status and headers only.

use std::ops::Range;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

/// Longest wait that a server may ask for.
const MAX_WAIT: Duration = Duration::from_mins(15);

/// What to do with an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The bytes that were asked for, or the first of them.
    Part {
        /// Where they end.
        end: u64,
        /// Size of the whole file, where it is said.
        total: Option<u64>,
    },
    /// The whole file, whatever was asked for; its size, where it is said.
    Whole(Option<u64>),
    /// The file is empty: a range of it does not exist.
    Empty,
    /// Come back later, after so long where it is said.
    Wait(Option<Duration>),
    /// Not here, not for us, or not any more.
    Refused,
    /// The server itself is in trouble.
    Down(String),
    /// Try again.
    Retry(String),
    /// It is not the file that the plan speaks of.
    Changed(String),
}

/// Reads an answer to a request for `wanted` (`None`: for the whole file) of a file of `size` bytes.
pub fn read(status: StatusCode, headers: &HeaderMap, wanted: Option<&Range<u64>>, size: Option<u64>) -> Meaning {
    match status.as_u16() {
        206 => part(headers, wanted, size),
        200 => match (length(headers), size) {
            (Some(length), Some(size)) if length != size => {
                Meaning::Changed(format!("it has {length} bytes there and {size} in the plan"))
            }
            (length, _) => Meaning::Whole(length),
        },
        416 => match total(headers) {
            Some(0) if size.is_none_or(|size| size == 0) => Meaning::Empty,
            _ => Meaning::Changed("it is shorter there than in the plan".to_owned()),
        },
        401 | 403 | 404 | 410 | 451 => Meaning::Refused,
        429 => Meaning::Wait(wait(headers)),
        503 if headers.contains_key(RETRY_AFTER) => Meaning::Wait(wait(headers)),
        other @ 500..=599 => Meaning::Down(format!("the server answered {other}")),
        other => Meaning::Retry(format!("the server answered {other}")),
    }
}

fn part(headers: &HeaderMap, wanted: Option<&Range<u64>>, size: Option<u64>) -> Meaning {
    let Some(wanted) = wanted else { return Meaning::Retry("the server sent a part where the whole was asked for".to_owned()) };
    let range = text(headers, &CONTENT_RANGE).and_then(parse_content_range);
    let Some((start, end, total)) = range else { return Meaning::Retry("the server does not say which part it sent".to_owned()) };
    if let (Some(total), Some(size)) = (total, size)
        && total != size
    {
        return Meaning::Changed(format!("it has {total} bytes there and {size} in the plan"));
    }
    // A server may send less than was asked for; the rest is asked for again.
    if start == wanted.start && start < end && end <= wanted.end {
        Meaning::Part { end, total }
    } else {
        Meaning::Retry(format!("the server sent bytes {start}-{end} where {}-{} were asked for", wanted.start, wanted.end))
    }
}

/// `bytes 0-99/1000` as start, end (exclusive) and total.
fn parse_content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.strip_prefix("bytes ")?.split_once('/')?;
    let (start, last) = range.split_once('-')?;
    let end = last.parse::<u64>().ok()?.checked_add(1)?;
    Some((start.parse().ok()?, end, total.parse().ok()))
}

fn total(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_RANGE)?.strip_prefix("bytes */")?.parse().ok()
}

fn length(headers: &HeaderMap) -> Option<u64> {
    text(headers, &CONTENT_LENGTH)?.parse().ok()
}

fn text<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

/// How long nobody should ask this server again: it says so where it refuses, or has given the last answer of this window.
pub fn quiet(status: StatusCode, headers: &HeaderMap) -> Option<Duration> {
    match status.as_u16() {
        429 | 503 => wait(headers),
        _ => spent(headers).map(bounded),
    }
}

/// What the server's clock says, in seconds since the epoch.
pub fn date(headers: &HeaderMap) -> Option<i64> {
    Some(jiff::fmt::rfc2822::parse(text(headers, &DATE)?).ok()?.timestamp().as_second())
}

/// `Retry-After` in seconds or as a date, by the server's own clock; else the end of the window where nothing remains of it.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let after = text(headers, &RETRY_AFTER).and_then(|text| text.trim().parse().ok().or_else(|| seconds_until(text, headers)));
    after.or_else(|| spent(headers)).map(bounded)
}

fn bounded(seconds: u64) -> Duration {
    Duration::from_secs(seconds).min(MAX_WAIT)
}

fn seconds_until(then: &str, headers: &HeaderMap) -> Option<u64> {
    let then = jiff::fmt::rfc2822::parse(then).ok()?.timestamp().as_second();
    let now = date(headers).unwrap_or_else(|| jiff::Timestamp::now().as_second());
    Some(u64::try_from(then - now).unwrap_or(0))
}

/// Seconds until a window ends of which nothing remains, as draft-ietf-httpapi-ratelimit-headers has it: one item for each
/// policy, `RateLimit: "api";r=0;t=55`. Without `t` it is at most the policy's whole window, `RateLimit-Policy: "api";q=500;w=300`.
fn spent(headers: &HeaderMap) -> Option<u64> {
    let limit = text(headers, &http::HeaderName::from_static("ratelimit"))?;
    let policy = text(headers, &http::HeaderName::from_static("ratelimit-policy")).unwrap_or_default();
    let window = |name: &str| policy.split(',').find(|item| item.contains(name)).and_then(|item| value(item, "w"));
    let over = limit.split(',').filter(|item| value(item, "r") == Some(0));
    over.filter_map(|item| value(item, "t").or_else(|| window(item.split(';').next()?.trim()))).max()
}

fn value(item: &str, key: &str) -> Option<u64> {
    item.split(';').find_map(|part| part.trim().strip_prefix(key)?.strip_prefix('=')?.parse().ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
    }

    fn meaning(status: u16, pairs: &[(&'static str, &str)], size: Option<u64>) -> Meaning {
        read(StatusCode::from_u16(status).unwrap(), &headers(pairs), Some(&(10..20)), size)
    }

    #[test]
    fn only_the_part_that_was_asked_for_counts() {
        assert_eq!(meaning(206, &[("content-range", "bytes 10-19/100")], Some(100)), Meaning::Part { end: 20, total: Some(100) });
        assert_eq!(meaning(206, &[("content-range", "bytes 10-19/*")], Some(100)), Meaning::Part { end: 20, total: None });
        assert_eq!(meaning(206, &[("content-range", "bytes 10-14/15")], None), Meaning::Part { end: 15, total: Some(15) });
        assert!(matches!(meaning(206, &[("content-range", "bytes 0-9/100")], Some(100)), Meaning::Retry(_)));
        assert!(matches!(meaning(206, &[("content-range", "bytes 10-20/100")], Some(100)), Meaning::Retry(_)));
        assert!(matches!(meaning(206, &[], Some(100)), Meaning::Retry(_)));
        assert!(matches!(meaning(206, &[("content-range", "bytes 10-19/101")], Some(100)), Meaning::Changed(_)));
    }

    #[test]
    fn a_server_without_ranges_sends_the_whole() {
        assert_eq!(meaning(200, &[("content-length", "100")], Some(100)), Meaning::Whole(Some(100)));
        assert_eq!(meaning(200, &[], None), Meaning::Whole(None));
        assert!(matches!(meaning(200, &[("content-length", "99")], Some(100)), Meaning::Changed(_)));
        assert_eq!(meaning(416, &[("content-range", "bytes */0")], None), Meaning::Empty);
        assert!(matches!(meaning(416, &[], Some(100)), Meaning::Changed(_)));
    }

    #[test]
    fn waits_are_read_in_every_spelling() {
        let seconds = |n| Meaning::Wait(Some(Duration::from_secs(n)));
        assert_eq!(meaning(429, &[("retry-after", "7")], None), seconds(7));
        assert_eq!(meaning(429, &[("retry-after", "Thu, 01 Jan 1970 00:00:00 GMT")], None), seconds(0));
        assert_eq!(meaning(429, &[("ratelimit", "\"api\";r=0;t=55")], None), seconds(55));
        assert_eq!(meaning(429, &[("ratelimit", "\"api\";r=3;t=55")], None), Meaning::Wait(None));
        assert_eq!(meaning(429, &[("retry-after", "99999999")], None), Meaning::Wait(Some(MAX_WAIT)));
        assert_eq!(meaning(503, &[("retry-after", "1")], None), seconds(1));
        let by_its_clock = [("retry-after", "Thu, 01 Jan 1970 00:01:00 GMT"), ("date", "Thu, 01 Jan 1970 00:00:20 GMT")];
        assert_eq!(meaning(429, &by_its_clock, None), seconds(40));
        assert!(matches!(meaning(503, &[], None), Meaning::Down(_)));
        assert!(matches!(meaning(418, &[], None), Meaning::Retry(_)));
        assert_eq!(meaning(403, &[], None), Meaning::Refused);
    }

    #[test]
    fn the_last_answer_of_a_window_asks_for_quiet() {
        let after = |status, pairs: &[(&'static str, &str)]| {
            quiet(StatusCode::from_u16(status).unwrap(), &headers(pairs)).map(|wait| wait.as_secs())
        };
        assert_eq!(after(206, &[("ratelimit", "\"a\";r=0;t=9, \"b\";r=0;t=70, \"c\";r=5;t=99")]), Some(70));
        let policy = ("ratelimit-policy", "\"fixed window\";\"a\";q=500;w=300, \"b\";q=9;w=60");
        assert_eq!(after(200, &[("ratelimit", "\"b\";r=0"), policy]), Some(60));
        assert_eq!(after(200, &[("ratelimit", "\"a\";r=1;t=9"), policy]), None);
        assert_eq!(after(200, &[("retry-after", "9")]), None, "it refused nothing");
        assert_eq!(after(503, &[("retry-after", "9")]), Some(9));
        assert_eq!(after(302, &[("ratelimit", "\"a\";r=0;t=9999999")]), Some(MAX_WAIT.as_secs()));
    }
}
