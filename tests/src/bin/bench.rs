//! `substratus-bench`: prints what was measured, as tables or as JSON. All work is in `substratus_tests::bench`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use clap::{Parser, ValueEnum};
use serde_json::{Map, Value};
use substratus_tests::bench::{
    Own, buckets, builds, datasets, killed, load, neighbours, notebook, operator, plugins, pulled, sandbox, sizes,
};

/// Measures Substratus next to its peers, in one run on one machine
#[derive(Debug, Parser)]
#[command(name = "substratus-bench", version, after_long_help = AFTER)]
struct Arguments {
    /// What to measure
    #[arg(value_enum, default_value_t = Section::All)]
    section: Section,
    /// The `substratus` program to measure; build it with `cargo build --release`
    #[arg(long, value_name = "PATH", default_value_os_t = beside("substratus"))]
    substratus: PathBuf,
    /// Folder of the bundled plugins (`make plugins` fills it)
    #[arg(long, value_name = "DIR", default_value = "target/plugins")]
    plugins: PathBuf,
    /// The operator's image as an OCI layout (`make image` packs it)
    #[arg(long, value_name = "FILE", default_value = "target/operator.tar")]
    image: PathBuf,
    /// load, buckets, killed: MiB of the large file
    #[arg(long, value_name = "MIB", default_value_t = 4096, value_parser = clap::value_parser!(u64).range(1..))]
    size: u64,
    /// load, buckets, small: how many files of 100 kB, of 1 KiB
    #[arg(long, value_name = "N", default_value_t = 5000, value_parser = clap::value_parser!(u32).range(1..))]
    files: u32,
    /// load, buckets, small, killed, datasets, notebook, builds: times that every program runs, in turn with the others [default: load 15, others 5]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    runs: Option<u32>,
    /// load, small, killed: connections of `substratus load`
    #[arg(long, value_name = "N")]
    connections: Option<u16>,
    /// datasets: how many rows
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u32).range(1000..))]
    rows: u32,
    /// plugins: calls of every function
    #[arg(long, value_name = "N", default_value_t = 2000, value_parser = clap::value_parser!(u32).range(1..))]
    calls: u32,
    /// operator: Models in the second half
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    models: u32,
    /// operator: how long it is watched at rest
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    rest: u64,
    /// How to print
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

const AFTER: &str = "\
load      Files from a hub on this machine: `substratus load`, which checks the SHA-256 and makes the files durable, and `curl`,
          `aria2c -x16` and `huggingface_hub`, which do neither. One large file, the same in 20, and many of 100 kB, each as fast
          as it goes, and a quarter of the bytes with an answer that begins 50 ms late and 40 MB/s for a connection. The programs take
          turns, there and back. `least` is the fastest run, other columns are medians; CPU and peak memory are the program's. `bound` is what the
          run would take if program and hub together kept every core busy and waited for nothing. `times ours` is how long it took
          in units of `substratus load` in the same turn, with the interval that holds the true median 95 times in 100.
buckets   An artifact from a folder into a bucket of an S3 server on this machine and out of it again: `substratus publish` and `stage`,
          `rclone copy` and boto3 with the CRT client, all with their checksums on, in the same three shapes.
small     Loads of many files of 1 KiB.
killed    A load that gets SIGKILL half way, and another one that ends it: what the hub had to send twice.
datasets  Rows from a hub on this machine, written as JSON Lines: `substratus import`, which checks every row, counts them and makes
          the files durable, and plain importers in Python (the standard library, `pyarrow`, `datasets`). Then four files by one
          process and by several, and how much faster two are than one. Memory is that of the largest process.
plugins   Every plugin of the folder: compiled for the first time, found compiled, and asked one call after the other, each
          answered by a fresh instance, in this process and across the socket of a sandbox. Then the sandbox itself: its memory
          with 5 and 50 plugins loaded, and how soon a new one has 20 ready whose native code is in the cache. Then plugins of a
          registry on this machine until they can be asked, signatures, and a policy beside a plugin that loops.
operator  The operator as its own account against a real API server (`substratus-cluster preflight` says what that needs): start
          to ready, memory, and how many objects it writes, which at rest must be none.
notebook  A Notebook with a real JupyterLab on a node of its own, from `kubectl apply` and from its resumption to a 200 on /api with
          its token, and the same image in a Pod without any operator. `image` is what of it the image itself takes, from the
          start of its process in the container; `ours` is all the rest: kubectl, the operator, Kubernetes. The image is on the node.
builds    An image from git, from `kubectl apply` to its place in a registry, for the first time and again, and the same builder in a Pod
          of its own, as somebody would run it who has no operator.
sizes     The program, the plugins and the image, as they are and compressed as a registry keeps them.

Nothing here passes or fails. Measure a release build on an idle machine: `make bench`, or after it
  target/x86_64-unknown-linux-musl/release/substratus-bench load --size 256 --files 500 --runs 6 -o json";

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Section {
    Load,
    Buckets,
    Small,
    Killed,
    Datasets,
    Plugins,
    Operator,
    Notebook,
    Builds,
    Sizes,
    All,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

fn main() -> ExitCode {
    match run(&Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &Arguments) -> Result<()> {
    if cfg!(debug_assertions) {
        eprintln!("note: this is not a release build; its numbers say little");
    }
    let wants = |section| arguments.section == section || arguments.section == Section::All;
    check(arguments)?;
    let mut report = Map::new();
    let mut say = |name: &str, table: String, rows: Value| {
        if arguments.output == Output::Text {
            println!("{table}");
        }
        // A section with several tables has a list.
        if let Some(list) = report.entry(name).or_insert_with(|| Value::Array(Vec::new())).as_array_mut() {
            list.push(rows);
        }
    };
    let (substratus, folder): (&Path, &Path) = (&arguments.substratus, &arguments.plugins);
    let own = Own { substratus, plugins: folder, connections: arguments.connections };
    let (runs, bytes) = (arguments.runs.unwrap_or(5), arguments.size << 20);
    let options = load::Options { own, runs };
    if wants(Section::Load) {
        let options = load::Options { own, runs: arguments.runs.unwrap_or(15) };
        let compared = load::compared(&options, bytes, arguments.files, |measured| {
            say("load", load::table(&measured, options.runs).to_string(), serde_json::to_value(&measured)?);
            Ok(())
        });
        compared.context("measuring loads")?;
    }
    if wants(Section::Buckets) {
        let compared = buckets::compared(&options, bytes, arguments.files, |measured| {
            say("buckets", buckets::table(&measured, runs).to_string(), serde_json::to_value(&measured)?);
            Ok(())
        });
        compared.context("measuring copies to and from a bucket")?;
    }
    if wants(Section::Small) {
        let measured = load::small(&options, arguments.files).context("measuring loads of small files")?;
        say("small", load::table(&measured, runs).to_string(), serde_json::to_value(&measured)?);
    }
    if wants(Section::Killed) {
        let rows = killed::measure(&own, bytes, runs).context("measuring killed loads")?;
        say("killed", killed::table(&rows, bytes).to_string(), serde_json::to_value(&rows)?);
    }
    if wants(Section::Datasets) {
        for measured in datasets::measure(&options, arguments.rows).context("measuring imports")? {
            say("datasets", datasets::table(&measured, runs).to_string(), serde_json::to_value(&measured)?);
        }
    }
    if wants(Section::Plugins) {
        of_plugins(arguments, runs, |table, rows| say("plugins", table, rows))?;
    }
    if wants(Section::Operator) {
        let options = operator::Options {
            substratus,
            plugins: folder,
            models: arguments.models,
            rest: Duration::from_secs(arguments.rest),
        };
        let rows = operator::measure(&options).context("measuring the operator")?;
        say("operator", operator::table(&rows, &options).to_string(), serde_json::to_value(&rows)?);
    }
    if wants(Section::Notebook) {
        let rows = notebook::measure(substratus, runs).context("measuring Notebooks")?;
        say("notebook", notebook::table(&rows, runs).to_string(), serde_json::to_value(&rows)?);
    }
    if wants(Section::Builds) {
        let rows = builds::measure(substratus, runs).context("measuring builds")?;
        say("builds", builds::table(&rows, runs).to_string(), serde_json::to_value(&rows)?);
    }
    if wants(Section::Sizes) {
        let rows =
            sizes::measure(substratus, folder, &arguments.image).context("measuring sizes; `make image` packs the image")?;
        say("sizes", sizes::table(&rows).to_string(), serde_json::to_value(&rows)?);
    }
    if arguments.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    }
    Ok(())
}

fn of_plugins(arguments: &Arguments, runs: u32, mut say: impl FnMut(String, Value)) -> Result<()> {
    let (program, folder, calls): (&Path, &Path, _) = (&arguments.substratus, &arguments.plugins, arguments.calls);
    let runtime = tokio::runtime::Runtime::new()?;
    let rows = runtime.block_on(plugins::measure(program, folder, calls)).context("measuring plugins")?;
    say(plugins::table(&rows, calls).to_string(), serde_json::to_value(&rows)?);
    let rows = runtime.block_on(sandbox::measure(program, folder, runs)).context("measuring the sandbox")?;
    say(sandbox::table(&rows).to_string(), serde_json::to_value(&rows)?);
    let rows = runtime.block_on(pulled::measure(program, folder, runs)).context("measuring pulls")?;
    say(pulled::table(&rows, runs).to_string(), serde_json::to_value(&rows)?);
    let rows = runtime.block_on(neighbours::measure(program, folder, calls)).context("measuring neighbours")?;
    say(neighbours::table(&rows, calls).to_string(), serde_json::to_value(&rows)?);
    Ok(())
}

/// What is measured has to be there.
fn check(arguments: &Arguments) -> Result<()> {
    ensure!(
        arguments.plugins.is_dir(),
        "there is no folder {}; `make plugins` makes it, or name another with --plugins",
        arguments.plugins.display()
    );
    let missing = || format!("cannot find {}; build it, or name it with --substratus", arguments.substratus.display());
    arguments.substratus.metadata().with_context(missing).map(drop)
}

/// A program built with this one.
fn beside(name: &str) -> PathBuf {
    std::env::current_exe().ok().and_then(|own| Some(own.parent()?.join(name))).unwrap_or_else(|| name.into())
}
