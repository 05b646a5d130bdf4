//! The binary: names the subcommands and hands over. Knows nothing else.

use std::process::ExitCode;

use anyhow::Context as _;
use clap::{CommandFactory, Parser, Subcommand};
use substratus::builder::BuilderCommand;
use substratus::plugin::cli::PluginCommand;
use substratus::plugin::remote::cli::{CompileArgs, SandboxArgs};
use substratus::settings::OperatorSettings;
use substratus::{explain, run, sub, telemetry, worker};
use tokio_util::sync::CancellationToken;

/// Import, train and serve models on Kubernetes, with plugins in WebAssembly.
#[derive(Parser)]
#[command(
    name = "substratus",
    version,
    propagate_version = true,
    after_help = concat!(
        "Start here: ",
        env!("CARGO_PKG_REPOSITORY"),
        "#readme, and examples/README.md there for manifests;\n`substratus explain -f model.yaml` shows what one would lead to, without a cluster."
    )
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the operator in a cluster
    Operator(Box<OperatorSettings>),
    /// Fetch a model: by hand (`substratus load hf://org/name --to DIR`), or in a Job's pod
    Load(Box<worker::cli::LoadArgs>),
    /// Import a data set: by hand (`substratus import hf://datasets/org/name --to DIR`), or in a Job's pod
    Import(Box<worker::import::ImportArgs>),
    /// Show what a load or an import would fetch: `substratus plan hf://org/name`
    Plan(Box<worker::look::PlanArgs>),
    /// Copy an artifact from a bucket into a folder: before a container that reads files, or by hand
    Stage(Box<worker::stage::StageArgs>),
    /// Copy a folder into a bucket: after a container that wrote files, or by hand
    Publish(Box<worker::publish::PublishArgs>),
    /// Push an artifact to an OCI registry: after a Model is complete, or by hand (`substratus push DIR --to oci://…`)
    Push(Box<worker::push::PushArgs>),
    /// Watch from a Notebook's pod whether it is used, and have it suspended where it is not
    Idle(substratus::idle::IdleArgs),
    /// Show what manifests would lead to: plugin, files, engine, GPU, children; needs no cluster
    Explain(Box<explain::ExplainArgs>),
    /// Open what runs in the cluster: `substratus open notebook NAME`
    #[command(subcommand)]
    Open(sub::OpenCommand),
    /// Build, inspect, try and push plugins
    #[command(subcommand)]
    Plugin(Box<PluginCommand>),
    /// Print the `CustomResourceDefinitions` as YAML
    Crds,
    /// Steps of an image's build; run in the pods of builds
    #[command(subcommand, hide = true)]
    Builder(Box<BuilderCommand>),
    /// Run plugins for another process, with nothing at hand; started by the operator and its workers
    #[command(hide = true)]
    Sandbox(SandboxArgs),
    /// Compile a component for another process; started by the operator and its workers
    #[command(hide = true)]
    Compile(CompileArgs),
    /// Print a completion script: `substratus completion bash > /etc/bash_completion.d/substratus`
    Completion {
        /// Shell to write for
        shell: clap_complete::Shell,
    },
}

fn main() -> ExitCode {
    let cli = Cli::parse_from(sub::arguments(std::env::args_os()));
    // Those confine the process before it has a second thread.
    let command = match cli.command {
        Command::Sandbox(args) => return args.run().unwrap_or_else(|error| report(&error)),
        Command::Compile(args) => return args.run().unwrap_or_else(|error| report(&error)),
        command => command,
    };
    // One crypto provider for every TLS client of the process; chosen before the first of them.
    if rustls::crypto::aws_lc_rs::default_provider().install_default().is_err() {
        return ExitCode::FAILURE;
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&anyhow::Error::new(error).context("start the runtime")),
    };
    let result = runtime.block_on(dispatch(command));
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    result.unwrap_or_else(|error| report(&error))
}

async fn dispatch(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Operator(settings) => operator(*settings).await,
        Command::Load(args) => args.run().await,
        Command::Import(args) => args.run().await,
        Command::Plan(args) => args.run().await,
        Command::Stage(args) => args.run().await,
        Command::Publish(args) => args.run().await,
        Command::Push(args) => args.run().await,
        Command::Idle(args) => args.run().await,
        Command::Explain(args) => args.run().await,
        Command::Open(command) => command.run().await,
        Command::Plugin(command) => command.run().await,
        Command::Builder(command) => command.run().await,
        Command::Sandbox(args) => args.run(),
        Command::Compile(args) => args.run(),
        Command::Crds => {
            for definition in substratus_crds::crds() {
                print(&format!("---\n{}", substratus_crds::to_yaml(&definition)?));
            }
            Ok(ExitCode::SUCCESS)
        }
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "substratus", &mut script);
            print(&String::from_utf8_lossy(&script));
            Ok(ExitCode::SUCCESS)
        }
    }
}

async fn operator(settings: OperatorSettings) -> anyhow::Result<ExitCode> {
    let settings = settings.check()?;
    let log = telemetry::init(settings.log_format, &settings.log_filter)?;
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    let mut terminate =
        tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()).context("listen for SIGTERM")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        tracing::info!("stopping");
        stop.cancel();
    });
    run::operator(settings, log, shutdown).await?;
    Ok(ExitCode::SUCCESS)
}

#[expect(clippy::print_stdout, reason = "the output of the command")]
fn print(text: &str) {
    print!("{text}");
}

#[expect(clippy::print_stderr, reason = "the one place that reports a failed command")]
fn report(error: &anyhow::Error) -> ExitCode {
    eprintln!("error: {error:#}");
    ExitCode::FAILURE
}
