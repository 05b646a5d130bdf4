//! All that the user's commands print. Results go to the standard output, progress to the standard error. Knows no cluster.

use std::io::IsTerminal as _;
use std::time::Instant;

/// A terminal, or the file or pipe in its place.
#[derive(Debug)]
pub(super) struct Screen {
    began: Instant,
}

impl Screen {
    /// Time counts from here.
    pub(super) fn new() -> Self {
        Self { began: Instant::now() }
    }

    /// A step, with the time since the start.
    #[expect(clippy::print_stderr, reason = "progress of the command")]
    pub(super) fn step(&self, text: &str) {
        eprintln!("{:>6.1}s  {text}", self.began.elapsed().as_secs_f32());
    }

    /// What the command is asked for.
    #[expect(clippy::print_stdout, reason = "the output of the command")]
    pub(super) fn result(text: &str) {
        println!("{text}");
    }

    /// Whether a person looks at the results.
    pub(super) fn is_terminal() -> bool {
        std::io::stdout().is_terminal()
    }
}
