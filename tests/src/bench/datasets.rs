//! Rows of a data set from a hub on this machine, by `substratus import` and by plain importers in Python, in turn: the same file in,
//! the same rows out as JSON Lines. Must not look into the worker.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;

use super::child::{self, Cost};
use super::load::Options;
use super::peers::PROXIES;
use super::place::Place;
use super::stats::{least, mebibytes, median};
use super::table::Table;
use crate::engine;
use crate::hub::{Content, Hub, Repo};

const REPO: &str = "bench/rows";
const ROWS_PY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/bench/rows.py");
/// Files of the work that is spread over processes.
const PARTS: usize = 4;
/// One leads, as many as asked for do the shards.
const SPREAD: &str =
    r#"n=$1; shift; i=0; while [ $i -lt $n ]; do "$@" --share=$i/$n & i=$((i+1)); done; "$@" --lead; code=$?; wait; exit $code"#;

/// One kind of work.
#[derive(Debug, Serialize)]
pub struct Measured {
    what: &'static str,
    rows: u64,
    mebibytes: f64,
    programs: Vec<Row>,
    /// Most memory that a process of `substratus import` held in any run: what it does not exceed, however large the input.
    own_peak_mebibytes: f64,
    /// How many times as fast two processes are as one, where that was asked.
    speed_up: Option<f64>,
}

/// One program.
#[derive(Debug, Serialize)]
pub struct Row {
    program: String,
    least_seconds: f64,
    median_seconds: f64,
    rows_per_second: f64,
    mebibytes_per_second: f64,
    cpu_seconds: f64,
    peak_mebibytes: f64,
}

/// Who does the work.
enum Program {
    /// Importer, and what it is asked.
    Own { label: String, arguments: Vec<String>, processes: usize },
    /// The way of `rows.py`, and the file.
    Python { label: &'static str, how: &'static str, file: &'static str },
}

/// What there is to work on.
struct Bench<'a> {
    options: &'a Options<'a>,
    python: PathBuf,
    hub: Hub,
    scratch: tempfile::TempDir,
    place: Place,
    _runtime: tokio::runtime::Runtime,
}

/// Measures every kind of work with so many rows.
pub fn measure(options: &Options<'_>, rows: u32) -> Result<Vec<Measured>> {
    let python = engine::bench_python(&engine::cache()?)?;
    let scratch = tempfile::tempdir().context("making a folder for the rows")?;
    let folder = scratch.path();
    let made = Command::new(&python).arg(ROWS_PY).arg("make").arg(folder).arg(rows.to_string()).status()?;
    ensure!(made.success(), "making the rows failed; its output is above");
    let mut repo = Repo::dataset(REPO);
    for file in ["rows.jsonl", "rows.parquet", "train-v2.0.json"] {
        repo = repo.file(file, Content::file(&folder.join(file))?);
    }
    for part in 0..PARTS {
        repo = repo.file(&format!("part-{part}.jsonl"), Content::file(&folder.join("rows.jsonl"))?);
    }
    let runtime = tokio::runtime::Runtime::new()?;
    let hub = Hub::builder().repo(repo).start(Ipv4Addr::LOCALHOST.into(), runtime.handle())?;
    let bench = Bench { options, python, hub, scratch, place: Place::disk()?, _runtime: runtime };
    let (rows, python) = (u64::from(rows), |label, how, file| Program::Python { label, how, file });
    let urls: Vec<String> = (0..PARTS).map(|part| bench.url(&format!("part-{part}.jsonl"))).collect();
    let spread = |processes| {
        bench.import("substratusai/dataset-loader-http", &["format=jsonl", &format!("urls={}", urls.join(","))], processes)
    };
    let http = |file| {
        let url = format!("urls={}", bench.url(file));
        bench.import("substratusai/dataset-loader-http", &["format=jsonl", &url], 0)
    };
    let parts = u64::try_from(PARTS)?;
    Ok(vec![
        bench.turns(
            "JSON Lines to JSON Lines",
            rows,
            bench.size("rows.jsonl")?,
            &[
                http("rows.jsonl"),
                python("python, json", "json", "rows.jsonl"),
                python("pyarrow", "pyarrow", "rows.jsonl"),
                python("datasets", "datasets", "rows.jsonl"),
            ],
        )?,
        bench.turns(
            "Parquet to JSON Lines",
            rows,
            bench.size("rows.parquet")?,
            &[http("rows.parquet"), python("pyarrow", "pyarrow", "rows.parquet"), python("datasets", "datasets", "rows.parquet")],
        )?,
        bench.turns(
            "SQuAD to JSON Lines, mapped by a guest in Rust",
            rows / 100 * 100,
            bench.size("train-v2.0.json")?,
            &[bench.import("substratusai/dataset-squad", &[], 0), python("python, json", "squad", "train-v2.0.json")],
        )?,
        bench.turns(
            "four files of JSON Lines",
            rows * parts,
            bench.size("rows.jsonl")? * parts,
            &[spread(0), spread(1), spread(2)],
        )?,
    ])
}

impl Bench<'_> {
    fn url(&self, file: &str) -> String {
        format!("{}/datasets/{REPO}/resolve/main/{file}", self.hub.url)
    }

    fn size(&self, file: &str) -> Result<u64> {
        Ok(fs::metadata(self.scratch.path().join(file))?.len())
    }

    fn import(&self, image: &str, params: &[&str], processes: usize) -> Program {
        let mut arguments = vec!["--image".to_owned(), image.to_owned()];
        arguments.extend(params.iter().flat_map(|param| ["--param".to_owned(), (*param).to_owned()]));
        if image.ends_with("squad") {
            let endpoint = format!("endpoint={}/datasets/{REPO}/resolve/main", self.hub.url);
            arguments.extend(["--config".to_owned(), endpoint]);
        }
        let label = match processes {
            0 => "substratus import".to_owned(),
            1 => "substratus import, parallelism 1 beside a leader".to_owned(),
            number => format!("substratus import, parallelism {number} beside a leader"),
        };
        Program::Own { label, arguments, processes }
    }

    fn turns(&self, what: &'static str, rows: u64, bytes: u64, programs: &[Program]) -> Result<Measured> {
        // The first import compiles the importer; all that are timed find it in the cache.
        if let Some(first) = programs.first() {
            self.once(first, rows)?;
        }
        let mut runs: Vec<Vec<Cost>> = programs.iter().map(|_| Vec::new()).collect();
        for _ in 0..self.options.runs {
            for (program, runs) in programs.iter().zip(&mut runs) {
                runs.push(self.once(program, rows)?);
            }
        }
        let own = programs.iter().zip(&runs).filter(|(program, _)| program.processes().is_some());
        let own_peak = own.flat_map(|(_, runs)| runs.iter().map(|cost| cost.peak_bytes)).max().unwrap_or_default();
        let speed_up = speed_up(programs, &runs);
        let programs = programs.iter().zip(&runs).filter_map(|(program, runs)| row(program, runs, rows, bytes)).collect();
        Ok(Measured { what, rows, mebibytes: mebibytes(bytes), programs, own_peak_mebibytes: mebibytes(own_peak), speed_up })
    }

    /// One run into an empty folder; every row must be there.
    fn once(&self, program: &Program, rows: u64) -> Result<Cost> {
        let target = self.place.target()?;
        let (mut command, written) = self.command(program, &target);
        for proxy in PROXIES {
            command.env_remove(proxy);
        }
        let log = fs::File::create(self.scratch.path().join("log"))?;
        let (status, cost) = child::run(command.stdout(log.try_clone()?).stderr(log))?;
        if !status.success() {
            bail!("{} failed: {}", program.label(), fs::read_to_string(self.scratch.path().join("log")).unwrap_or_default());
        }
        let found = lines_below(&written).with_context(|| format!("looking for what {} wrote", program.label()))?;
        ensure!(found == rows, "{} wrote {found} of {rows} rows", program.label());
        Ok(cost)
    }

    fn command(&self, program: &Program, target: &Path) -> (Command, PathBuf) {
        match program {
            Program::Python { how, file, .. } => {
                let mut command = Command::new(&self.python);
                command.args(["-B", ROWS_PY, how, &self.url(file)]).arg(target.join("rows.jsonl"));
                command.env("HF_HOME", self.scratch.path().join("hf")).env("HF_HUB_OFFLINE", "1").env("NO_PROXY", "*");
                (command, target.to_owned())
            }
            Program::Own { arguments, processes, .. } => {
                let mut command = match processes {
                    0 => Command::new(self.options.own.substratus),
                    number => {
                        let mut command = Command::new("sh");
                        command.args(["-c", SPREAD, "sh", &number.to_string()]).arg(self.options.own.substratus);
                        command
                    }
                };
                command.arg("import").args(arguments).args(["--grant", &self.hub.url, "--grant", &self.hub.cdn_url]);
                command.arg("--to").arg(target).arg("--plugins").arg(self.options.own.plugins);
                command.arg("--plugin-cache").arg(self.scratch.path().join("cache"));
                (command, target.join("artifacts"))
            }
        }
    }
}

impl Program {
    fn label(&self) -> &str {
        match self {
            Self::Own { label, .. } => label,
            Self::Python { label, .. } => label,
        }
    }

    /// Of our own: how many do the shards beside a leader.
    fn processes(&self) -> Option<usize> {
        match self {
            Self::Own { processes, .. } => Some(*processes),
            Self::Python { .. } => None,
        }
    }
}

/// The fastest run of one process by the fastest of two.
fn speed_up(programs: &[Program], runs: &[Vec<Cost>]) -> Option<f64> {
    let seconds = |processes| {
        let at = programs.iter().position(|program| program.processes() == Some(processes))?;
        least(&runs.get(at)?.iter().map(|cost| cost.seconds).collect::<Vec<_>>())
    };
    Some(seconds(1)? / seconds(2)?)
}

fn lines_below(folder: &Path) -> Result<u64> {
    let mut lines = 0;
    for entry in fs::read_dir(folder)? {
        let mut file = BufReader::new(fs::File::open(entry?.path())?);
        let mut line = Vec::new();
        while file.read_until(b'\n', &mut line)? > 0 {
            lines += 1;
            line.clear();
        }
    }
    Ok(lines)
}

#[expect(clippy::cast_precision_loss, reason = "a number for people")]
fn row(program: &Program, runs: &[Cost], rows: u64, bytes: u64) -> Option<Row> {
    let all = |number: fn(&Cost) -> f64| runs.iter().map(number).collect::<Vec<_>>();
    let seconds = all(|cost| cost.seconds);
    let least = least(&seconds)?;
    Some(Row {
        program: program.label().to_owned(),
        least_seconds: least,
        median_seconds: median(&seconds)?,
        rows_per_second: rows as f64 / least,
        mebibytes_per_second: mebibytes(bytes) / least,
        cpu_seconds: median(&all(|cost| cost.cpu_seconds))?,
        peak_mebibytes: median(&all(|cost| mebibytes(cost.peak_bytes)))?,
    })
}

/// For people.
pub fn table(measured: &Measured, runs: u32) -> Table {
    let cells = |row: &Row| {
        vec![
            row.program.clone(),
            format!("{:.2}", row.least_seconds),
            format!("{:.2}", row.median_seconds),
            format!("{:.0}", row.rows_per_second),
            format!("{:.1}", row.mebibytes_per_second),
            format!("{:.2}", row.cpu_seconds),
            format!("{:.1}", row.peak_mebibytes),
        ]
    };
    let bound = format!("substratus import held at most {:.1} MiB in any run", measured.own_peak_mebibytes);
    let speed_up =
        measured.speed_up.map(|times| format!("parallelism 1 to 2: {times:.2} times as fast, fastest run by fastest run"));
    Table {
        title: format!(
            "datasets: {}, {} rows, {:.1} MiB in, {runs} runs in turn",
            measured.what, measured.rows, measured.mebibytes
        ),
        columns: vec!["program", "least s", "median s", "rows/s", "MiB/s", "CPU s", "peak MiB"],
        rows: measured.programs.iter().map(cells).collect(),
        notes: std::iter::once(bound).chain(speed_up).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_speed_up_is_of_one_process_to_two() {
        let own = |processes| Program::Own { label: String::new(), arguments: Vec::new(), processes };
        let run = |seconds| Cost { seconds, cpu_seconds: 0.0, peak_bytes: 0 };
        let programs = [own(0), own(1), own(2)];
        let runs = [vec![run(1.0)], vec![run(9.0), run(6.0)], vec![run(4.0), run(5.0)]];
        assert_eq!(speed_up(&programs, &runs), Some(1.5));
        assert_eq!(speed_up(&programs[..2], &runs[..2]), None);
    }
}
