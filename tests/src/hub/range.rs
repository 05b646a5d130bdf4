//! Which bytes a `Range` header asks for. Pure; must not know where they come from.

/// What to serve; `end` is exclusive.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub(super) enum Span {
    Whole,
    Part { start: u64, end: u64 },
    Unsatisfiable,
}

/// Reads the header's value; anything but a single range of bytes means the whole, as RFC 9110 allows.
pub(super) fn parse(value: Option<&str>, size: u64) -> Span {
    let Some((first, last)) = value
        .and_then(|value| value.trim().strip_prefix("bytes="))
        .filter(|ranges| !ranges.contains(','))
        .and_then(|range| range.split_once('-'))
    else {
        return Span::Whole;
    };
    let (start, end) = match (first.trim().parse::<u64>(), last.trim().parse::<u64>()) {
        (Ok(first), Ok(last)) if last < first => return Span::Whole,
        (Ok(first), Ok(last)) => (first, last.saturating_add(1).min(size)),
        (Ok(first), Err(_)) if last.trim().is_empty() => (first, size),
        (Err(_), Ok(0)) if first.trim().is_empty() => return Span::Unsatisfiable,
        (Err(_), Ok(suffix)) if first.trim().is_empty() => (size.saturating_sub(suffix), size),
        _ => return Span::Whole,
    };
    if start >= size { Span::Unsatisfiable } else { Span::Part { start, end } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_rfc_9110_says() {
        let part = |start, end| Span::Part { start, end };
        for (value, span) in [
            ("bytes=0-0", part(0, 1)),
            ("bytes=2-4", part(2, 5)),
            ("bytes=8-", part(8, 10)),
            ("bytes=8-99", part(8, 10)),
            ("bytes=-3", part(7, 10)),
            ("bytes=-99", part(0, 10)),
            ("bytes=10-", Span::Unsatisfiable),
            ("bytes=-0", Span::Unsatisfiable),
            ("bytes=4-2", Span::Whole),
            ("bytes=0-1,4-5", Span::Whole),
            ("bytes=x-", Span::Whole),
            ("lines=1-2", Span::Whole),
        ] {
            assert_eq!(parse(Some(value), 10), span, "{value}");
        }
        assert_eq!(parse(None, 10), Span::Whole);
        assert_eq!(parse(Some("bytes=0-"), 0), Span::Unsatisfiable);
    }
}
