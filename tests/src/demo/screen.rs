//! All that the demo prints: titles, steps with the time they took, quotations. It must not know what they are about.

use std::cell::Cell;
use std::io::{self, BufRead as _, Write as _};
use std::time::Instant;

use anyhow::{Context as _, Result};

/// Standard output, when the demo began, and when its last step ended.
#[derive(Debug)]
pub struct Screen {
    began: Instant,
    last: Cell<Instant>,
}

impl Screen {
    /// Time counts from here.
    pub fn start() -> Self {
        let began = Instant::now();
        Self { began, last: Cell::new(began) }
    }

    /// A line as it is.
    pub fn line(&self, text: &str) {
        // A reader that went away (`| head`) ends no demo half way: what was started should be finished.
        let _ = writeln!(io::stdout(), "{text}");
    }

    /// Begins a part.
    pub fn title(&self, text: &str) {
        self.line(&format!("\n== {text}"));
    }

    /// Something is done: since when the demo runs, and how long this took.
    pub fn step(&self, text: &str) {
        let now = Instant::now();
        let took = now.duration_since(self.last.replace(now)).as_secs_f32();
        self.line(&format!("{:>7.1} s {took:>+6.1}  {text}", now.duration_since(self.began).as_secs_f32()));
    }

    /// What somebody else printed, or a manifest.
    pub fn quote(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.line(&format!("                 {line}"));
        }
    }

    /// A question that is answered with y or n.
    pub fn ask(&self, question: &str) -> Result<bool> {
        write!(io::stdout(), "{question} [y/N] ").and_then(|()| io::stdout().flush()).context("asking")?;
        let mut answer = String::new();
        io::stdin().lock().read_line(&mut answer).context("reading the answer")?;
        Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
    }
}
