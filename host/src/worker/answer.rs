//! What a server's answer to a request for bytes means. Pure: looks at status and headers only.

use std::ops::Range;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, RETRY_AFTER};
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

/// `Retry-After` in seconds or as a date; else `RateLimit: "name";r=0;t=55` where nothing remains.
fn wait(headers: &HeaderMap) -> Option<Duration> {
    let after = text(headers, &RETRY_AFTER).and_then(|text| text.trim().parse().ok().or_else(|| seconds_until(text)));
    after
        .or_else(|| rate_limit(text(headers, &http::HeaderName::from_static("ratelimit"))?))
        .map(|seconds| Duration::from_secs(seconds).min(MAX_WAIT))
}

fn seconds_until(date: &str) -> Option<u64> {
    let then = jiff::fmt::rfc2822::parse(date).ok()?.timestamp().as_second();
    Some(u64::try_from(then - jiff::Timestamp::now().as_second()).unwrap_or(0))
}

fn rate_limit(text: &str) -> Option<u64> {
    let value =
        |key: &str| text.split([';', ',']).find_map(|part| part.trim().strip_prefix(key)?.strip_prefix('=')?.parse::<u64>().ok());
    (value("r")? == 0).then(|| value("t")).flatten()
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
        assert!(matches!(meaning(503, &[], None), Meaning::Retry(_)));
        assert_eq!(meaning(403, &[], None), Meaning::Refused);
    }
}
