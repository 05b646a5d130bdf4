//! Medians and percentiles. Must not know what was measured.

/// The value that `share` (0 to 1) of all do not exceed; nothing where there is none.
pub(super) fn percentile(values: &[f64], share: f64) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "an index into measurements"
    )]
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied()
}

/// The middle one; with an even number, the lower of the two.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    percentile(values, 0.5)
}

/// The smallest: what disturbs a measurement only ever adds.
pub(super) fn least(values: &[f64]) -> Option<f64> {
    percentile(values, 0.0)
}

/// Bytes in MiB.
#[expect(clippy::cast_precision_loss, reason = "a number for people")]
pub(super) fn mebibytes(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 20)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(percentile(&hundred, 0.99), Some(99.0));
        assert_eq!(percentile(&hundred, 1.0), Some(100.0));
        assert_eq!(percentile(&hundred, 0.0), Some(1.0));
    }
}
