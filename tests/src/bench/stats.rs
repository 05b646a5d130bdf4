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

/// Between which values the median of all that could have been measured lies, in 95 of 100 times: order statistics, which assume
/// nothing of how values are spread. Nothing where there are too few values to say.
pub(super) fn interval(values: &[f64]) -> Option<(f64, f64)> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let count = i32::try_from(sorted.len()).ok()?;
    // How likely it is that exactly so many of `count` values are below the median, summed up from none.
    let (mut likely, mut sum, mut outside) = (0.5_f64.powi(count), 0.0, 0);
    for below in 0..count {
        sum += likely;
        if sum > 0.025 {
            break;
        }
        outside = below + 1;
        likely *= f64::from(count - below) / f64::from(below + 1);
    }
    let at = usize::try_from(outside).ok()?.checked_sub(1)?;
    Some((*sorted.get(at)?, *sorted.get(sorted.len().checked_sub(1 + at)?)?))
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

    #[test]
    fn a_median_is_known_the_better_the_more_values_there_are() {
        let of = |count: i32| interval(&(1..=count).rev().map(f64::from).collect::<Vec<_>>());
        assert_eq!((of(0), of(5)), (None, None), "even all five on one side are no wonder");
        // Ranks from tables of the binomial distribution.
        assert_eq!(of(6), Some((1.0, 6.0)));
        assert_eq!(of(15), Some((4.0, 12.0)));
        assert_eq!(of(20), Some((6.0, 15.0)));
    }
}
