//! Makes text from a guest fit for a condition, an event or a log line. Knows nothing about what the text says.

use crate::limits::SENTENCE_BYTES;

/// One line of at most [`SENTENCE_BYTES`], without control characters.
pub fn sentence(text: &str) -> String {
    clip(text, SENTENCE_BYTES)
}

/// One line of at most `max` bytes.
pub(super) fn clip(text: &str, max: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(max));
    for character in text.chars() {
        if clean.len() + character.len_utf8() > max.saturating_sub("…".len()) {
            clean.push('…');
            break;
        }
        clean.push(if is_unfit(character) { ' ' } else { character });
    }
    clean.trim().to_owned()
}

/// Control characters forge lines; bidirectional overrides make a line read as another.
fn is_unfit(character: char) -> bool {
    character.is_control() || matches!(character, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_single_and_short() {
        assert_eq!(sentence("a\nb\u{202e}c\u{1b}[31m\n"), "a b c [31m");
        assert_eq!(sentence("plain"), "plain");
        let long = sentence(&"ä".repeat(SENTENCE_BYTES));
        assert!(long.len() <= SENTENCE_BYTES && long.ends_with('…'));
    }
}
