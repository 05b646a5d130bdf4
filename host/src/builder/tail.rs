//! The last lines that programs print: shown as they come, kept for the message, without what is secret. Knows no program.

use std::collections::VecDeque;
use std::process::{ExitStatus, Stdio};

use tokio::io::{AsyncBufReadExt as _, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// Lines that are kept.
const MAX_LINES: usize = 200;
/// Longest line that is kept, in bytes.
const MAX_LINE: usize = 500;
/// What stands for a secret.
const HIDDEN: &str = "***";

/// The last lines.
#[derive(Debug, Default)]
pub(super) struct Tail {
    lines: VecDeque<String>,
    secrets: Vec<String>,
}

impl Tail {
    /// Never shows any of these.
    pub(super) fn hiding(secrets: Vec<String>) -> Self {
        Self { lines: VecDeque::new(), secrets: secrets.into_iter().filter(|secret| !secret.is_empty()).collect() }
    }

    /// The lines, oldest first.
    pub(super) fn lines(&self) -> impl DoubleEndedIterator<Item = &str> + Clone {
        self.lines.iter().map(String::as_str)
    }

    /// Runs a program to its end and follows what it prints on standard error.
    pub(super) async fn run(&mut self, command: &mut Command) -> std::io::Result<ExitStatus> {
        let mut child = start(command)?;
        let errors = child.stderr.take();
        if let Some(errors) = errors {
            self.follow(errors).await?;
        }
        child.wait().await
    }

    /// Follows what is printed until its end.
    pub(super) async fn follow(&mut self, stream: impl AsyncRead + Unpin) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        loop {
            line.clear();
            if reader.read_until(b'\n', &mut line).await? == 0 {
                return Ok(());
            }
            self.take(&String::from_utf8_lossy(&line));
        }
    }

    #[expect(clippy::print_stderr, reason = "the log of the pod")]
    fn take(&mut self, text: &str) {
        // Progress is drawn by going back to the start of the line: what was there last counts.
        let text = text.trim_end().rsplit('\r').next().unwrap_or_default();
        let mut text = text.replace(|c: char| c.is_control() && c != '\t', "");
        for secret in &self.secrets {
            text = text.replace(secret, HIDDEN);
        }
        eprintln!("{text}");
        text.truncate(text.floor_char_boundary(MAX_LINE));
        if text.trim().is_empty() {
            return;
        }
        if self.lines.len() == MAX_LINES {
            self.lines.pop_front();
        }
        self.lines.push_back(text);
    }
}

/// Starts a program that ends with us, and whose standard error is followed.
pub(super) fn start(command: &mut Command) -> std::io::Result<Child> {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).kill_on_drop(true).spawn()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn secrets_are_hidden_and_old_lines_go() {
        let mut tail = Tail::hiding(vec!["s3cret".to_owned(), String::new()]);
        let text = (0..300).map(|n| format!("line {n} s3cret")).collect::<Vec<_>>().join("\n") + "\n10%\r20%\n\n";
        tail.follow(text.as_bytes()).await.unwrap();
        let lines: Vec<_> = tail.lines().collect();
        assert_eq!(lines.len(), MAX_LINES);
        assert_eq!((lines[MAX_LINES - 2], lines[MAX_LINES - 1]), ("line 299 ***", "20%"));
    }
}
