//! What the runs of one program come to beside those of ours in the same turns. Must not know what the programs do.

use serde::Serialize;

use super::child::Cost;
use super::stats::{interval, least, mebibytes, median};
use super::table::or_dash;

/// A run of a program: its cost, and the processor time of the server it talked to.
pub(super) type Run = (Cost, f64);

/// A program that takes part.
#[derive(Debug, Clone, Copy)]
pub(super) struct Program {
    pub(super) name: &'static str,
    /// The bytes are checked before the program says that it is done.
    pub(super) verifies: bool,
    pub(super) is_ours: bool,
}

/// One program.
#[derive(Debug, Serialize)]
pub struct Row {
    program: &'static str,
    least_seconds: f64,
    median_seconds: f64,
    mebibytes_per_second: f64,
    cpu_seconds: f64,
    server_cpu_seconds: f64,
    bound_seconds: f64,
    peak_mebibytes: f64,
    verified: bool,
    /// How many times as long as our program in the same turn it took: the median, and where that is for sure.
    times_ours: Option<f64>,
    between: Option<(f64, f64)>,
    runs: Vec<f64>,
}

/// Heads of the columns of [`Row::cells`].
pub(super) const COLUMNS: [&str; 11] =
    ["program", "least s", "median s", "MiB/s", "CPU s", "server CPU s", "bound s", "peak MiB", "verified", "times ours", "95 %"];

/// The row of a program that moved so many bytes in every run.
pub(super) fn row(program: Program, runs: &[Run], ours: &[Run], bytes: u64) -> Option<Row> {
    let all = |number: fn(&Run) -> f64| runs.iter().map(number).collect::<Vec<_>>();
    let seconds = all(|(cost, _)| cost.seconds);
    let ratios: Vec<f64> = seconds.iter().zip(ours).map(|(theirs, (ours, _))| theirs / ours.seconds).collect();
    let (cpu, server_cpu) = (median(&all(|(cost, _)| cost.cpu_seconds))?, median(&all(|(_, server)| *server))?);
    Some(Row {
        program: program.name,
        least_seconds: least(&seconds)?,
        median_seconds: median(&seconds)?,
        mebibytes_per_second: mebibytes(bytes) / least(&seconds)?,
        cpu_seconds: cpu,
        server_cpu_seconds: server_cpu,
        bound_seconds: (cpu + server_cpu) / cores(),
        peak_mebibytes: median(&all(|(cost, _)| mebibytes(cost.peak_bytes)))?,
        verified: program.verifies,
        times_ours: median(&ratios).filter(|_| !program.is_ours),
        between: interval(&ratios).filter(|_| !program.is_ours),
        runs: seconds,
    })
}

impl Row {
    /// For people.
    pub(super) fn cells(&self) -> Vec<String> {
        vec![
            self.program.to_owned(),
            format!("{:.2}", self.least_seconds),
            format!("{:.2}", self.median_seconds),
            format!("{:.0}", self.mebibytes_per_second),
            format!("{:.2}", self.cpu_seconds),
            format!("{:.2}", self.server_cpu_seconds),
            format!("{:.2}", self.bound_seconds),
            format!("{:.1}", self.peak_mebibytes),
            if self.verified { "yes" } else { "no" }.to_owned(),
            or_dash(self.times_ours, 2),
            self.between.map_or_else(|| "-".to_owned(), |(low, high)| format!("{low:.2}-{high:.2}")),
        ]
    }
}

/// Processors of this machine.
pub(super) fn cores() -> f64 {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    u32::try_from(cores).map_or(1.0, f64::from)
}
