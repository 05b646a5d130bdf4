//! When a signed URL runs out, read from the URL itself. Pure.

use std::time::Duration;

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use url::Url;

/// How long `url` works, counted from `now` (seconds since the epoch, best by the clock of whoever signed it); nothing where it
/// does not say. Known are the fields of S3 and what speaks like it (`X-Amz-Date` and `X-Amz-Expires`), Google's (`X-Goog-…`),
/// Azure's (`se`), and of `CloudFront` and older S3 (`Expires`, seconds since the epoch).
pub fn lifetime(url: &Url, now: i64) -> Option<Duration> {
    let ends = ["X-Amz", "X-Goog"].into_iter().find_map(|by| signed(url, by));
    let ends = ends.or_else(|| field(url, "Expires")?.parse().ok());
    let ends = ends.or_else(|| instant(&field(url, "se")?))?;
    Some(Duration::from_secs(u64::try_from(ends.saturating_sub(now)).unwrap_or(0)))
}

/// A time of signing, and how many seconds from then.
fn signed(url: &Url, by: &str) -> Option<i64> {
    let seconds: i64 = field(url, &format!("{by}-Expires"))?.parse().ok()?;
    let date = DateTime::strptime("%Y%m%dT%H%M%SZ", field(url, &format!("{by}-Date"))?).ok()?;
    Some(date.to_zoned(TimeZone::UTC).ok()?.timestamp().as_second().saturating_add(seconds))
}

/// An ISO 8601 time or date, as Azure writes them.
fn instant(text: &str) -> Option<i64> {
    let at = text.parse::<Timestamp>().ok();
    let at = at.or_else(|| Some(text.parse::<jiff::civil::Date>().ok()?.to_zoned(TimeZone::UTC).ok()?.timestamp()));
    Some(at?.as_second())
}

fn field(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-01-02T03:04:05Z.
    const NOW: i64 = 1_767_323_045;

    fn seconds(query: &str) -> Option<u64> {
        let url = Url::parse(&format!("https://cdn.example/f?{query}")).unwrap();
        lifetime(&url, NOW).map(|left| left.as_secs())
    }

    #[test]
    fn every_signer_says_when_it_ends() {
        assert_eq!(seconds("X-Amz-Algorithm=A&X-Amz-Date=20260102T030405Z&X-Amz-Expires=3600&X-Amz-Signature=00"), Some(3600));
        assert_eq!(seconds("x-amz-date=20260102T020405Z&x-amz-expires=3600"), Some(0));
        assert_eq!(seconds("X-Goog-Date=20260102T030405Z&X-Goog-Expires=60"), Some(60));
        assert_eq!(seconds(&format!("Expires={}&Signature=x&Key-Pair-Id=K", NOW + 7)), Some(7));
        assert_eq!(seconds("sv=2024-01-01&se=2026-01-02T03%3A05%3A05Z&sig=x"), Some(60));
        assert_eq!(seconds("se=2026-01-03"), Some(75_355));
        assert_eq!(seconds(&format!("Expires={}", NOW - 1)), Some(0), "it is over");
    }

    #[test]
    fn what_says_nothing_ends_never() {
        for query in ["", "Expires=soon", "X-Amz-Expires=60", "X-Amz-Date=20269902T030405Z&X-Amz-Expires=60", "se=later"] {
            assert_eq!(seconds(query), None, "{query}");
        }
        assert_eq!(
            seconds("X-Amz-Date=20260102T030405Z&X-Amz-Expires=9223372036854775807"),
            Some((i64::MAX - NOW).unsigned_abs())
        );
    }
}
