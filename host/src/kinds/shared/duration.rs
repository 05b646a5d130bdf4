//! Times to wait as users write them. Pure; knows no clock.

use std::time::Duration;

/// Longest time that is taken: a year.
const MAX: Duration = Duration::from_hours(366 * 24);

/// Reads `30m`, `1h30m`, `90s`: numbers with `h`, `m` or `s`, added up. Nothing where it is none, is zero or is over a year.
pub fn read(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut number = None;
    for letter in text.chars() {
        if let Some(digit) = letter.to_digit(10) {
            number = Some(number.unwrap_or(0_u64).checked_mul(10)?.checked_add(u64::from(digit))?);
            continue;
        }
        let seconds = match letter {
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        total = total.checked_add(Duration::from_secs(number.take()?.checked_mul(seconds)?))?;
    }
    (number.is_none() && !total.is_zero() && total <= MAX).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        for (text, seconds) in [("10s", 10), ("30m", 1800), ("1h30m", 5400), ("1m1m", 120), ("007s", 7), ("8784h", 31_622_400)] {
            assert_eq!(read(text), Some(Duration::from_secs(seconds)), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_to_wait_is_refused() {
        for text in
            ["", "0s", "0h0m", "30", "m", "1m30", "1d", "-1m", "1.5h", "8785h", "99999999999999999999s", "5124095576030431h"]
        {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
