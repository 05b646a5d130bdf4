//! `substratus explain`: what manifests would lead to, with the operator's own code and no cluster. Prints; writes nothing.

mod manifests;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::{Context as _, bail};
use clap::{Args, ValueEnum};
use kube::ResourceExt;
use substratus_crds::conditions::reason;
use substratus_crds::{ArtifactStatus, Artifacts, Dataset, Model, Notebook, ObjectRef, Plugin, PluginRole, Server, SourceStatus};

use self::manifests::Manifests;
use self::report::Report;
use crate::catalog::Catalog;
use crate::kinds::artifact::plan::Run;
use crate::kinds::artifact::{self, Artifact};
use crate::kinds::image::conclude::Runs;
use crate::kinds::plugin::bundle;
use crate::kinds::plugin::install::activate;
use crate::kinds::shared::child::Owner;
use crate::kinds::shared::environment::{Building, Environment};
use crate::kinds::{image, notebook, server};
use crate::plugin::{Isolation, PluginOptions, Plugins};
use crate::reconcile::Kind;
use crate::settings::{BUILDER_IMAGE, NOTEBOOK_IMAGE, PUBLISH_SECONDS};
use crate::worker::listing::Listing;
use crate::worker::load::Effort;
use crate::worker::request::LoadRequest;

/// Arguments of `substratus explain`.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  substratus explain -f model.yaml\n  substratus explain -f model.yaml -f server.yaml --cloud gcp -o yaml\n  cat *.yaml | substratus explain -f - --offline"
)]
pub struct ExplainArgs {
    /// Manifests: files, or `-` for standard input
    #[arg(short = 'f', long = "filename", required = true, value_name = "FILE")]
    filenames: Vec<PathBuf>,
    /// Cloud to explain for; picks the GPU policy
    #[arg(long, env = "CLOUD", default_value = "local")]
    cloud: String,
    /// Name of the cluster; part of every artifact's address
    #[arg(long, env = "CLUSTER_NAME", default_value = "substratus")]
    cluster_name: String,
    /// The artifact bucket
    #[arg(long, env = "ARTIFACT_BUCKET_URL", default_value = "tar:////bucket")]
    artifact_bucket_url: String,
    /// Registry and path of images that are built from source; without one, nothing is built
    #[arg(long, env = "REGISTRY_URL")]
    registry_url: Option<String>,
    /// Folder of the bundled plugins
    #[arg(long, env = "PLUGINS_DIR", default_value = "/plugins")]
    plugins_dir: PathBuf,
    /// Do not ask hubs: files and bytes stay unknown, and so does what a Server's plan takes from them
    #[arg(long)]
    offline: bool,
    /// How to print
    #[arg(short = 'o', long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// For people; children as YAML
    Text,
    /// One document per object
    Yaml,
    /// One list
    Json,
}

struct Explainer {
    plugins: Plugins,
    catalog: Arc<Catalog>,
    environment: Environment,
    offline: bool,
}

impl ExplainArgs {
    /// Explains and prints; exit code 1 where an object could not go on.
    #[expect(clippy::print_stdout, reason = "the output of the command")]
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let manifests = Manifests::read(&self.filenames)?;
        let cache = std::env::temp_dir().join(format!("substratus-explain-{}", rustix::process::getuid().as_raw()));
        let options = PluginOptions { cache, bundled: vec![self.plugins_dir.clone()] };
        let plugins = Plugins::open_isolated(options, Isolation::child()).context("start the plugin host")?;
        if plugins.bundled().is_empty() {
            bail!(
                "no plugins in `{}`; name the folder with --plugins-dir (`make plugins` builds the first-party ones)",
                self.plugins_dir.display()
            );
        }
        let bucket = self.artifact_bucket_url.parse().context("read --artifact-bucket-url")?;
        let explainer = Explainer {
            catalog: Arc::new(catalog(&plugins, &manifests.plugins)?),
            plugins,
            environment: Environment {
                cloud: self.cloud,
                cluster: self.cluster_name,
                bucket,
                worker_image: "substratus".to_owned(),
                worker_pull_secret: None,
                bucket_secret: None,
                copies_always: false,
                publish_seconds: PUBLISH_SECONDS,
                plain_http: Vec::new(),
                proxies: Vec::new(),
                certificates: None,
                store_url: "http://substratus-store.substratus.svc:8090".to_owned(),
                store_port: 8090,
                confines_workers: true,
                bucket_endpoints: Vec::new(),
                notebook_image: NOTEBOOK_IMAGE.to_owned(),
                principal: None,
                building: Building {
                    registry: self.registry_url.map(|url| url.trim_end_matches('/').to_owned()),
                    image: BUILDER_IMAGE.to_owned(),
                    git_image: BUILDER_IMAGE.to_owned(),
                    ..Building::default()
                },
            },
            offline: self.offline,
        };
        let reports = explainer.all(manifests).await;
        let failed = reports.iter().any(|report| report.stopped.is_some());
        print!("{}", report::print(&reports, self.output == Output::Json, self.output == Output::Yaml)?);
        Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }
}

/// The bundled plugins, configured by the Plugin manifests at hand.
fn catalog(plugins: &Plugins, configured: &[Plugin]) -> anyhow::Result<Catalog> {
    let mut active = bundle::bundled(plugins);
    for object in configured {
        let Some(slot) = active.iter_mut().find(|plugin| plugin.name == object.name_any()) else { continue };
        let configured = activate(object, slot.digest.clone(), slot.manifest.clone(), None)
            .map_err(|why| anyhow::anyhow!("Plugin `{}`: {why}", object.name_any()))?;
        *slot = Arc::new(configured);
    }
    Ok(Catalog::new(active, std::collections::BTreeMap::new()))
}

/// Models and Datasets as they would be once loaded: what refers to them is planned for those.
#[derive(Default)]
struct Known {
    models: Vec<Arc<Model>>,
    datasets: Vec<Arc<Dataset>>,
}

/// The object of a name, in the namespace of whoever names it.
fn find<T: ResourceExt>(known: &[Arc<T>], reference: Option<&ObjectRef>, from: &impl ResourceExt) -> Option<Arc<T>> {
    let name = &reference?.name;
    known.iter().find(|other| &other.name_any() == name && other.namespace() == from.namespace()).cloned()
}

impl Explainer {
    async fn all(&self, manifests: Manifests) -> Vec<Report> {
        let (mut reports, mut known) = (Vec::new(), Known::default());
        for dataset in manifests.datasets {
            let (report, status) = self.artifact(Arc::new(dataset.clone()), &known).await;
            reports.push(report);
            known.datasets.push(Arc::new(Dataset { status, ..dataset }));
        }
        for model in manifests.models {
            let (report, status) = self.artifact(Arc::new(model.clone()), &known).await;
            reports.push(report);
            known.models.push(Arc::new(Model { status, ..model }));
        }
        for server in manifests.servers {
            reports.push(self.server(Arc::new(server), &known).await);
        }
        for notebook in manifests.notebooks {
            reports.push(self.notebook(Arc::new(notebook), &known).await);
        }
        reports
    }

    /// The report, and the status as it would be once the artifact is whole.
    async fn artifact<A: Artifact>(&self, object: Arc<A>, known: &Known) -> (Report, Option<ArtifactStatus>) {
        let mut report = Report::of(object.as_ref());
        let Some(object) = self.built(object, &mut report) else { return (report, None) };
        let wanted = object.wanted();
        let observed = artifact::observe::Observed {
            owner: Owner::of(object.as_ref()),
            job: None,
            shards: None,
            publisher: None,
            pods: Vec::new(),
            base: find(&known.models, wanted.model, object.as_ref()),
            dataset: find(&known.datasets, wanted.dataset, object.as_ref()),
            nodes: Vec::new(),
            catalog: Arc::clone(&self.catalog),
            progress: None,
            pushing: None,
            siblings: Vec::new(),
            now: jiff::Timestamp::UNIX_EPOCH,
            object: Arc::clone(&object),
        };
        report.route = artifact::validate::validate(&observed).ok().map(|valid| valid.route.describe(A::FACTS.verb));
        let plan = match artifact::plan::plan(&observed, &self.environment, &self.plugins).await {
            Ok(plan) => plan,
            Err(verdict) => {
                report.stop(&verdict);
                return (report, None);
            }
        };
        report.artifacts = Some(plan.target.clone());
        match &plan.push {
            Some(Ok(push)) => report.publish = Some(format!("{}, once it is complete", push.to)),
            Some(Err(verdict)) => report.stop(verdict),
            None => {}
        }
        report.placement = plan.placement.as_ref().map(|placement| placement.reason.clone());
        match artifact::build::build(&observed, &self.environment, &plan) {
            Ok((children, _)) => report.children.extend(children.into_iter().map(|child| child.object)),
            Err(verdict) => report.stop(&verdict),
        }
        let (mut source, mut plugin) = (None, None);
        if let Run::Load { plugin: loader, .. } = &plan.run {
            plugin = Some(loader.clone());
            if self.offline {
                report.unknown = Some("files, bytes, revision and format: no hub was asked".to_owned());
            } else {
                source = self
                    .look(
                        A::FACTS.role,
                        artifact::build::request(&observed, &self.environment, &plan).ok().flatten(),
                        &mut report,
                    )
                    .await;
            }
        }
        let status = ArtifactStatus {
            ready: report.stopped.is_none(),
            artifacts: Some(Artifacts { url: Some(plan.target) }),
            source,
            plugin,
            ..ArtifactStatus::default()
        };
        (report, Some(status))
    }

    /// The object as it is once its image is built, and the children that build it; nothing where it cannot be.
    fn built<K: Kind>(&self, object: Arc<K>, report: &mut Report) -> Option<Arc<K>> {
        let Some(build) = object.wants_build(&self.catalog) else { return Some(object) };
        let owner = Owner::of(object.as_ref());
        let observed = image::observe::Observed {
            owner: &owner,
            build,
            image: object.image().filter(|image| !image.is_empty()),
            record: None,
            handshake: None,
            // It is shown what follows when the sources have come.
            sent: image::handshake::Sent { is_here: true, ..image::handshake::Sent::default() },
            rebuild: None,
            job: None,
            pods: Vec::new(),
            now: jiff::Timestamp::UNIX_EPOCH,
        };
        match image::plan::plan(&observed, &self.environment) {
            Err(verdict) if observed.image.is_none() && object.runs() => {
                report.stop(&verdict);
                None
            }
            // With an image at hand, that one runs.
            Err(_) => Some(object),
            Ok(plan) => {
                let children = image::job::children(&observed, &self.environment, &plan, object.pull_secrets());
                report.children = children.into_iter().map(|child| child.object).collect();
                let mut running = K::clone(&object);
                Runs::Image(plan.image, true).put(running.fields(), None);
                Some(Arc::new(running))
            }
        }
    }

    /// Asks the loader or importer, as the worker would.
    async fn look(&self, role: PluginRole, request: Option<LoadRequest>, report: &mut Report) -> Option<SourceStatus> {
        let (request, env, effort) = (request?, std::env::vars_os(), Effort::default());
        let found = match role {
            PluginRole::DatasetImporter => {
                let plan = crate::worker::import::look(&self.plugins, &request, env, &effort).await;
                plan.map(|plan| Listing::of_import(&plan))
            }
            _ => crate::worker::load::look(&self.plugins, &request, env, &effort, false).await.map(|plan| Listing::of(&plan)),
        };
        match found {
            Ok(source) => {
                let facts = source.facts.clone();
                report.source = Some(source);
                Some(facts)
            }
            Err(error) => {
                report.stopped = Some(error.to_string());
                None
            }
        }
    }

    async fn server(&self, server: Arc<Server>, known: &Known) -> Report {
        let mut report = Report::of(server.as_ref());
        let Some(server) = self.built(server, &mut report) else { return report };
        let observed = server::observe::Observed {
            owner: Owner::of(server.as_ref()),
            model: find(&known.models, server.spec.model.as_ref(), server.as_ref()),
            deployment: None,
            pods: Vec::new(),
            nodes: Vec::new(),
            catalog: Arc::clone(&self.catalog),
            now: jiff::Timestamp::UNIX_EPOCH,
            server: Arc::clone(&server),
        };
        report.route = server::validate::validate(&observed).ok().map(|valid| valid.route.describe());
        match server::plan::plan(&observed, &self.environment, &self.plugins).await {
            // An adapter cannot say more of a Model whose files nobody listed; that is no mistake of the manifest.
            Err(verdict) if report.route.is_some() && from_files(verdict.reason) && unlisted(&observed) => {
                report.unknown = Some(format!("the Server's children: they follow from the Model's files; {}", verdict.message));
            }
            Err(verdict) => report.stop(&verdict),
            Ok(plan) => {
                report.engine.clone_from(&plan.answers.engine);
                report.reason = plan.answers.container.as_ref().map(|container| container.reason.clone());
                report.placement = plan.answers.placement.as_ref().map(|placement| placement.reason.clone());
                report.candidates.clone_from(&plan.answers.candidates);
                report.artifacts = Some(plan.answers.artifacts.clone());
                match server::build::build(&observed, &self.environment, &plan) {
                    Ok(children) => report.children.extend(children.into_iter().map(|child| child.object)),
                    Err(verdict) => report.stop(&verdict),
                }
            }
        }
        report
    }

    async fn notebook(&self, notebook: Arc<Notebook>, known: &Known) -> Report {
        let mut report = Report::of(notebook.as_ref());
        let Some(notebook) = self.built(notebook, &mut report) else { return report };
        let observed = notebook::observe::Observed {
            owner: Owner::of(notebook.as_ref()),
            model: find(&known.models, notebook.spec.model.as_ref(), notebook.as_ref()),
            dataset: find(&known.datasets, notebook.spec.dataset.as_ref(), notebook.as_ref()),
            pod: None,
            nodes: Vec::new(),
            catalog: Arc::clone(&self.catalog),
            now: jiff::Timestamp::UNIX_EPOCH,
            notebook: Arc::clone(&notebook),
        };
        match notebook::plan::plan(&observed, &self.environment, &self.plugins).await {
            Err(verdict) => report.stop(&verdict),
            Ok(plan) => {
                let valid = notebook::validate::validate(&observed, &self.environment);
                report.route = if plan.is_suspended {
                    Some("it is suspended: nothing runs".to_owned())
                } else {
                    valid.ok().map(|valid| valid.route.describe())
                };
                report.placement = plan.answers.placement.as_ref().map(|placement| placement.reason.clone());
                report.artifacts = Some(plan.place.clone());
                match notebook::build::build(&observed, &self.environment, &plan) {
                    Ok((children, _)) => report.children.extend(children.into_iter().map(|child| child.object)),
                    Err(verdict) => report.stop(&verdict),
                }
            }
        }
        report
    }
}

/// Whether an adapter may say so only because it does not know the Model's files.
fn from_files(said: &str) -> bool {
    matches!(said, reason::UNSUPPORTED | reason::INVALID)
}

/// A loader would import the Model, and was not asked what.
fn unlisted(observed: &server::observe::Observed) -> bool {
    let status = observed.model.as_ref().and_then(|model| model.status.as_ref());
    status.is_some_and(|status| status.plugin.is_some() && status.source.is_none())
}
