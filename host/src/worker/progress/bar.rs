//! The one line that a person at a terminal sees move. Pure but for asking how wide the terminal is; writes nothing.

use substratus_crds::TransferStatus;

use super::human;

/// Characters of the bar between its brackets.
const BAR: usize = 12;
/// Columns of a terminal that does not say.
const USUAL: usize = 80;

/// Columns of the terminal that standard error is.
pub(super) fn columns() -> usize {
    let told = rustix::termios::tcgetwinsize(std::io::stderr()).ok().map(|size| usize::from(size.ws_col));
    told.filter(|columns| *columns > 0).unwrap_or(USUAL)
}

/// Bar, percent, bytes, rate, time left, files, and the file in work with how many beside it: at most `columns` wide, what matters least cut off.
pub(super) fn line(transfer: &TransferStatus, current: Option<(String, usize)>, columns: usize) -> String {
    if transfer.files_total == 0 {
        return fit("asking the source what there is", columns.saturating_sub(1));
    }
    let percent: usize = transfer.progress.trim_end_matches('%').parse().unwrap_or(0);
    let full = (percent.min(100) * BAR) / 100;
    let head = if full < BAR { ">" } else { "" };
    let eta = transfer.eta_seconds.map(|seconds| format!(" {}", clock(seconds))).unwrap_or_default();
    let file = match current {
        Some((path, 0)) => format!(" {path}"),
        Some((path, others)) => format!(" {path} +{others}"),
        None => String::new(),
    };
    let line = format!(
        "[{bar:<BAR$}] {percent:>3}% {done}/{total} {rate}/s{eta} {}/{}{file}",
        transfer.files_done,
        transfer.files_total,
        bar = format!("{}{head}", "=".repeat(full)),
        done = human(transfer.bytes_done),
        total = human(transfer.bytes_total),
        rate = human(transfer.bytes_per_second),
    );
    // A line as wide as the terminal would wrap on some, and the next carriage return would leave it standing.
    fit(&line, columns.saturating_sub(1))
}

/// `0:19`, `1:02:03`
fn clock(seconds: i64) -> String {
    let (hours, minutes, seconds) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    if hours > 0 { format!("{hours}:{minutes:02}:{seconds:02}") } else { format!("{minutes}:{seconds:02}") }
}

/// The beginning of a text. Every character counts as one column; a path with wider ones is rare, and only looks untidy.
fn fit(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    text.chars().take(columns.saturating_sub(1)).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn half() -> TransferStatus {
        TransferStatus {
            progress: "50%".into(),
            bytes_done: 1 << 29,
            bytes_total: 1 << 30,
            bytes_per_second: 1 << 20,
            eta_seconds: Some(3723),
            files_done: 1,
            files_total: 9,
            ..TransferStatus::default()
        }
    }

    #[test]
    fn a_line_says_how_far_it_is() {
        let said = line(&half(), Some(("model.safetensors".into(), 2)), 200);
        let expected = "[======>     ]  50% 512.0 MiB/1.0 GiB 1.0 MiB/s 1:02:03 1/9 model.safetensors +2";
        assert_eq!(said, expected);
        let whole = TransferStatus { progress: "100%".into(), eta_seconds: None, ..half() };
        assert!(line(&whole, None, 200).starts_with("[============] 100% "));
        let odd = TransferStatus { progress: "?".into(), files_total: 1, ..TransferStatus::default() };
        assert_eq!(line(&odd, None, 200), "[>           ]   0% 0 B/0 B 0 B/s 0/1");
        assert_eq!(line(&TransferStatus::default(), None, 200), "asking the source what there is");
    }

    #[test]
    fn a_line_stays_one_line() {
        for columns in [0, 1, 2, 40, 80, 120] {
            let said = line(&half(), Some(("ü".repeat(300), 0)), columns);
            assert!(said.chars().count() < columns.max(2), "{columns}: {said}");
        }
        assert_eq!(clock(19), "0:19");
    }
}
