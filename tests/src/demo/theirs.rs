//! The demo on a cluster that is not ours, the user's own or one of kind: what is asked before, and what is removed after.
//! It must not know how the demo goes.

use std::io::{IsTerminal as _, stdin};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use super::NAMESPACE;
use super::screen::Screen;
use super::stage::{Place, Stage};
use crate::cluster::layout::Layout;
use crate::cluster::settings::Settings;
use crate::cluster::theirs::{Facts, Theirs};
use crate::image;
use crate::platform;
use crate::platform::kind::Kind;
use crate::platform::shelf::{Remote, Shelf};

/// What the user says about such a cluster.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Wishes {
    /// Where to push images, which the cluster must be able to pull from without a secret: `host[:port]/path`, with `http://`
    /// before it where there is no TLS
    #[arg(long, env = "REGISTRY", value_name = "REGISTRY")]
    pub registry: Option<String>,
    /// A folder that all nodes share, for the artifacts; needless where there is one node
    #[arg(long, env = "BUCKET", value_name = "PATH")]
    pub bucket: Option<PathBuf>,
}

/// Where artifacts lie unless told otherwise.
const BUCKET: &str = "/var/lib";
/// The folder in it, which is removed with the demo.
const FOLDER: &str = "substratus-demo";

impl Wishes {
    fn bucket(&self) -> Result<PathBuf> {
        let given = self.bucket.as_deref().filter(|path| !path.as_os_str().is_empty());
        let parent = given.unwrap_or_else(|| Path::new(BUCKET));
        if !parent.is_absolute() {
            bail!("BUCKET={} is no folder of a node; write a path that begins with a slash", parent.display());
        }
        Ok(parent.join(FOLDER))
    }

    fn shares(&self) -> bool {
        self.bucket.as_deref().is_some_and(|path| !path.as_os_str().is_empty())
    }

    fn registry(&self) -> Option<&str> {
        self.registry.as_deref().filter(|text| !text.is_empty())
    }
}

/// Shows where the current context leads and what would be done there, and asks.
pub fn current(settings: &Settings, layout: &Layout, wishes: &Wishes, screen: &Screen, consent: bool) -> Result<Stage> {
    screen.title("Substratus demo: on the cluster of your kubeconfig");
    let theirs = Theirs::current()?;
    screen.line(&format!("context: {}\nserver:  {}", theirs.context, theirs.server));
    let registry = wishes.registry().context(
        "REGISTRY is missing: name a registry that you may push to and the cluster can pull from, for example REGISTRY=ghcr.io/your-name",
    )?;
    let remote = Remote::parse(registry)?;
    require_programs(settings)?;
    let bucket = wishes.bucket()?;
    let cluster = theirs.open(layout.dir())?;
    let facts = cluster.block_on(Facts::of(&cluster))?;
    screen.line(&format!("version: {}, {} node(s) that take pods", facts.version, facts.nodes));
    facts.require(image::architecture(), wishes.shares())?;
    screen.line("it will");
    for change in [
        format!("push images to {}/{{substratus,llama.cpp,substratus-hub}}", remote.prefix()),
        format!("make the namespaces {} and {NAMESPACE}, and work in these alone", platform::NAMESPACE),
        "make the kinds, cluster roles and bindings of examples/deploy, unless there are others of their names".to_owned(),
        format!("let workers write into {} of the node", bucket.display()),
        "delete one pod of its own while it loads; faults are injected into nothing".to_owned(),
    ] {
        screen.line(&format!("  - {change}"));
    }
    screen.line("`make demo-down CLUSTER=current` removes all but the images");
    // Of a demo that was refused nothing stays, least of all a copy of credentials.
    agree(screen, consent, &format!("Go on with {}?", theirs.context)).inspect_err(|_| drop(forget(layout)))?;
    Ok(Stage { place: Place::Current, cluster, shelf: Shelf::Registry(remote), bucket, layout: layout.clone() })
}

/// Removes what the demo made on the cluster of the current context.
pub fn current_down(layout: &Layout, wishes: &Wishes, screen: &Screen, consent: bool) -> Result<()> {
    let theirs = Theirs::current()?;
    screen.line(&format!("context: {}\nserver:  {}", theirs.context, theirs.server));
    screen.line(&format!(
        "all that the demo made goes: the namespaces {} and {NAMESPACE}, the kinds (and with them every object of theirs), \
         roles, and the artifacts",
        platform::NAMESPACE
    ));
    agree(screen, consent, &format!("Remove them from {}?", theirs.context))?;
    let cluster = theirs.open(layout.dir())?;
    let bucket = wishes.bucket()?;
    let deleted = cluster.block_on(platform::uninstall(&cluster, NAMESPACE, &bucket))?;
    screen.step(&format!("{deleted} objects of the demo are gone; the images stay in your registry"));
    forget(layout)
}

/// Starts kind's cluster, or finds it.
pub fn kind(settings: &Settings, layout: &Layout, screen: &Screen, consent: bool) -> Result<Stage> {
    screen.title("Substratus demo: on a cluster of kind's, named substratus (not tried against a real kind yet)");
    screen.line("it starts one container, a node, and keeps its kubeconfig apart from yours; `make demo-down` deletes it");
    require_programs(settings)?;
    agree(screen, consent, "Start it?")?;
    let kind = program(settings)?;
    std::fs::create_dir_all(layout.dir()).with_context(|| format!("making {}", layout.dir().display()))?;
    kind.create(&kubeconfig(layout))?;
    screen.step("Kubernetes runs, in kind");
    let cluster = Theirs::from_text(&kind.kubeconfig()?)?.open(layout.dir())?;
    let facts = cluster.block_on(Facts::of(&cluster))?;
    facts.require(image::architecture(), false)?;
    let bucket = Path::new(BUCKET).join(FOLDER);
    Ok(Stage { place: Place::Kind, cluster, shelf: Shelf::Kind(kind), bucket, layout: layout.clone() })
}

/// Deletes kind's cluster.
pub fn kind_down(settings: &Settings, layout: &Layout, screen: &Screen) -> Result<()> {
    program(settings)?.delete(&kubeconfig(layout))?;
    screen.step("the cluster of kind is gone");
    forget(layout)
}

fn program(settings: &Settings) -> Result<Kind> {
    settings.find("kind").map(Kind::new).context("cannot find `kind` on PATH; https://kind.sigs.k8s.io says how to get it")
}

fn kubeconfig(layout: &Layout) -> PathBuf {
    layout.dir().join("kind.kubeconfig")
}

fn require_programs(settings: &Settings) -> Result<()> {
    let missing: Vec<_> = ["kubectl", "strip", "python3", "cargo"]
        .into_iter()
        .filter(|program| settings.find(program).is_none() && super::which(program).is_none())
        .collect();
    if !missing.is_empty() {
        bail!("the demo needs {} on PATH", missing.join(", "));
    }
    Ok(())
}

fn agree(screen: &Screen, consent: bool, question: &str) -> Result<()> {
    if consent || (stdin().is_terminal() && screen.ask(question)?) {
        return Ok(());
    }
    bail!("nothing was changed; say --yes (YES=1) to go on without being asked")
}

/// The folder holds a kubeconfig, and nothing that anybody needs.
fn forget(layout: &Layout) -> Result<()> {
    std::fs::remove_dir_all(layout.dir()).with_context(|| format!("removing {}", layout.dir().display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn artifacts_get_a_folder_of_their_own() {
        let wish = |path: &str| Wishes { bucket: Some(path.into()), ..Wishes::default() };
        assert_eq!(wish("/mnt/shared").bucket().unwrap(), Path::new("/mnt/shared/substratus-demo"));
        assert_eq!(wish("").bucket().unwrap(), Path::new("/var/lib/substratus-demo"));
        assert!(wish("/mnt/shared").shares() && !wish("").shares());
        assert!(wish("shared").bucket().unwrap_err().to_string().contains("begins with a slash"));
    }
}
