//! The demo: a cluster, a model imported, a load killed and resumed, an engine that answers. It drives what users drive and
//! must not reach into the operator.
//!
//! | question | answer |
//! |---|---|
//! | What does it change on the machine? | [`crate::cluster::preflight::report`], printed first |
//! | Where does the cluster run? | [`background`]; if it is not ours, [`theirs`] |
//! | What is shown? | [`story`], and with a hub of the user's [`yours`] |
//! | How do pods of our own cluster reach that hub? | [`relay`] |

pub mod background;
pub mod relay;
pub mod screen;
pub mod stage;
pub mod story;
pub mod theirs;
pub mod yours;

use std::io::{IsTerminal as _, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::cluster::layout::{Layout, Mode};
use crate::cluster::settings::Settings;
use crate::cluster::{Cluster, cleanup, preflight};
use crate::platform;
use crate::platform::shelf::Shelf;
use screen::Screen;
use stage::{Place, Stage};
use theirs::Wishes;

/// Namespace of everything that the demo makes, besides the operator's own.
pub const NAMESPACE: &str = "substratus-demo";

/// Where the demo keeps what it needs, unless told otherwise. The folder of a cluster that is not ours holds its kubeconfig,
/// and lies apart: what is below the root of our own clusters is swept when their supervisors are gone.
pub fn default_dir(settings: &Settings, place: Place) -> PathBuf {
    match place {
        Place::Own => settings.root.join("demo"),
        Place::Current | Place::Kind => {
            let home = std::env::home_dir().unwrap_or_else(std::env::temp_dir);
            home.join(".cache/substratus").join(if place == Place::Kind { "demo-kind" } else { "demo-current" })
        }
    }
}

/// Where the demo plays, and what it was allowed.
#[derive(Debug)]
pub struct Plan {
    /// Whose cluster.
    pub place: Place,
    /// The demo's folder.
    pub dir: Option<PathBuf>,
    /// What the user says about a cluster that is not ours.
    pub wishes: Wishes,
    /// Whether to go on without asking.
    pub consent: bool,
}

/// What tests, which take no flags, are told of a cluster that is not ours.
#[derive(Debug, clap::Parser)]
struct Elsewhere {
    #[arg(long, env = "SUBSTRATUS_CLUSTER", value_enum)]
    cluster: Option<Place>,
    #[command(flatten)]
    wishes: Wishes,
}

impl Plan {
    /// The plan of tests that run on a cluster that is not ours, where `make` asked and installed; `None` where they have their own.
    pub fn of_tests() -> Result<Option<Self>> {
        let Elsewhere { cluster, wishes } = clap::Parser::try_parse_from(["tests"]).context("reading SUBSTRATUS_CLUSTER")?;
        let place = cluster.filter(|place| *place != Place::Own);
        Ok(place.map(|place| Self { place, dir: None, wishes, consent: true }))
    }

    fn layout(&self, settings: &Settings) -> Result<Layout> {
        let dir = self.dir.clone().unwrap_or_else(|| default_dir(settings, self.place));
        Ok(Layout::new(std::path::absolute(dir).context("finding the demo's folder")?))
    }

    /// Says what will be done, asks, and gets the cluster.
    pub fn stage(&self, settings: &Settings, screen: &Screen) -> Result<Stage> {
        let layout = self.layout(settings)?;
        match self.place {
            Place::Own => {
                ready_to_start(settings, &layout, screen, self.consent)?;
                background::start(settings, &layout, screen)?;
                let cluster = Cluster::attach(layout.dir())?;
                let registry = cluster.registry()?.to_owned();
                let bucket = layout.dir().join("bucket");
                Ok(Stage { place: self.place, cluster, shelf: Shelf::Mirror(registry), bucket, layout })
            }
            Place::Current => theirs::current(settings, &layout, &self.wishes, screen, self.consent),
            Place::Kind => theirs::kind(settings, &layout, screen, self.consent),
        }
    }
}

/// A model of the user's choice.
#[derive(Debug, Clone)]
pub struct Wish {
    /// Address of a hub that speaks Hugging Face's API, as this machine reaches it.
    pub hub: String,
    /// `org/name` of a repository with a GGUF file.
    pub model: String,
}

/// Starts the cluster, installs, and shows the whole way.
pub fn up(settings: &Settings, plan: &Plan, wish: Option<&Wish>) -> Result<()> {
    let screen = Screen::start();
    let program = platform::program()?;
    // Made before this thread enters a cluster's network: its own threads stay where the outside world is.
    let outside = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let stage = plan.stage(settings, &screen)?;
    let told = stage.cluster.block_on(async {
        let installed = story::tell(&stage, &program, &screen).await?;
        if let Some(wish) = wish {
            yours::tell(&stage, wish, outside.handle(), &installed, &screen).await?;
        }
        story::go_on(&stage, &screen);
        Ok(())
    });
    screen.line("");
    if told.is_err() {
        screen.line(&format!("To look into it: {}", stage.kubectl(&["get", "pods", "-A"])));
        screen.line(&format!("To remove the demo: {}", stage.command("down")));
    }
    told
}

/// Installs, for tests on a cluster that is not ours; `down` removes it.
pub fn install(settings: &Settings, plan: &Plan) -> Result<()> {
    let screen = Screen::start();
    let program = platform::program()?;
    let stage = plan.stage(settings, &screen)?;
    stage.cluster.block_on(story::install(&stage, &program, &screen)).map(drop)
}

/// Ends the cluster and removes what it used; from a cluster that is not ours, removes the demo.
pub fn down(settings: &Settings, plan: &Plan) -> Result<()> {
    let screen = Screen::start();
    let layout = plan.layout(settings)?;
    match plan.place {
        Place::Own => {
            cleanup::down(&layout)?;
            background::forget(&layout)?;
            screen.step("the cluster, its network namespace, its cgroups and its folder are gone");
            Ok(())
        }
        Place::Current => theirs::current_down(&layout, &plan.wishes, &screen, plan.consent),
        Place::Kind => theirs::kind_down(settings, &layout, &screen),
    }
}

/// Lets this machine talk to the demo's Server at `127.0.0.1:port`, until Ctrl-C.
pub fn forward(dir: &Path, port: u16) -> Result<()> {
    let screen = Screen::start();
    // Bound before this thread enters the cluster's network.
    let listener = std::net::TcpListener::bind(("127.0.0.1", port)).with_context(|| format!("listening on 127.0.0.1:{port}"))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    let cluster = Cluster::attach(&std::path::absolute(dir).context("finding the demo's folder")?)?;
    cluster.block_on(async {
        let address = story::address(&cluster, "tiny").await?;
        screen.line(&format!("http://127.0.0.1:{port} is the Server now, until Ctrl-C; for example:"));
        screen.line(&format!("  curl http://127.0.0.1:{port}/v1/completions -d '{{\"prompt\": \"hello\", \"max_tokens\": 8}}'"));
        let listener = tokio::net::TcpListener::from_std(listener)?;
        loop {
            let (mut near, _) = listener.accept().await.context("waiting for a connection")?;
            let address = address.clone();
            tokio::spawn(async move {
                // Either end may close it at any time.
                let mut far = tokio::net::TcpStream::connect(address).await?;
                tokio::io::copy_bidirectional(&mut near, &mut far).await
            });
        }
    })
}

/// Says what will happen, what is missing, and asks.
fn ready_to_start(settings: &Settings, layout: &Layout, screen: &Screen, consent: bool) -> Result<()> {
    screen.title("Substratus demo: a real single-node Kubernetes on this machine, in a network namespace of its own");
    if !consent {
        screen.quote(&preflight::report(settings));
    }
    let mut missing = preflight::missing(settings, Mode::Node);
    for (program, package) in
        [("strip", "binutils"), ("cargo", "rustup (https://rustup.rs)"), ("python3", "python3 and python3-pip")]
    {
        if settings.find(program).is_none() && which(program).is_none() {
            missing.push(format!("missing {program}: install {package}"));
        }
    }
    if settings.find("kubectl").is_none() {
        missing.push(format!("missing kubectl: tests/cluster/build-tools.sh {}", settings.tools.display()));
    }
    if !missing.is_empty() {
        bail!("this machine cannot run the demo yet\n  - {}", missing.join("\n  - "));
    }
    screen.line(&format!("state of this demo: {} (removed by `down`)", layout.dir().display()));
    if consent || (stdin().is_terminal() && screen.ask("Start it?")?) {
        return Ok(());
    }
    bail!("not started; say --yes to start without being asked")
}

fn which(program: &str) -> Option<PathBuf> {
    let home = std::env::home_dir()?;
    Some(home.join(".cargo/bin").join(program)).filter(|path| path.is_file())
}
