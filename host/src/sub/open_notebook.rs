//! `kubectl open notebook NAME`: resumes a Notebook, waits until it answers, and opens it in the browser. Knows nothing of how
//! the operator runs it: what it needs is in the Notebook's status.

use std::process::{ExitCode, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::{Api, ListParams, Patch, PatchParams};
use kube::runtime::watcher;
use kube::{Client, ResourceExt};
use serde_json::json;
use substratus_crds::Notebook;
use substratus_crds::conditions::SERVING;

use super::cluster::ClusterArgs;
use super::forward::Forward;
use super::screen::Screen;
use crate::kinds::shared::names;

const PORT: u16 = 8888;
const MANAGER: &str = "kubectl-open-notebook";

/// `open notebook`.
#[derive(Debug, clap::Args)]
pub struct OpenNotebookArgs {
    /// Name of the Notebook
    name: String,
    #[command(flatten)]
    cluster: ClusterArgs,
    /// Port of this machine to open it at; 0 takes a free one
    #[arg(short, long, default_value_t = 0)]
    port: u16,
    /// Longest wait until it answers
    #[arg(short, long, default_value = "20m", value_parser = duration)]
    timeout: Duration,
    /// Print the URL, and start no browser; so it is, too, where the output is no terminal
    #[arg(long)]
    no_browser: bool,
    /// What becomes of the Notebook when this command is stopped with Ctrl-C
    #[arg(long, value_enum, default_value_t = OnExit::Leave)]
    on_exit: OnExit,
    /// How to print the result
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum OnExit {
    /// It goes on running
    Leave,
    /// It is suspended; what is in its workspace stays
    Suspend,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Output {
    /// The URL
    Text,
    /// One object: namespace, name, url
    Json,
}

fn duration(text: &str) -> Result<Duration, String> {
    let parsed = text.parse::<jiff::SignedDuration>().map_err(|error| error.to_string())?;
    Duration::try_from(parsed).map_err(|_| "a time to wait is not negative".to_owned())
}

/// Why the command ends.
enum End {
    Stopped,
    Suspended,
    Deleted,
}

impl OpenNotebookArgs {
    /// Runs until Ctrl-C, or until the Notebook is suspended or deleted by somebody else.
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let screen = Screen::new();
        let (client, namespace) = self.cluster.connect().await?;
        let target = Target { client, namespace, name: self.name, screen };
        target.resume().await?;
        let stop = stop();
        tokio::pin!(stop);
        let opened = async {
            let notebook = tokio::time::timeout(self.timeout, target.ready()).await.with_context(|| {
                format!(
                    "Notebook `{}` did not answer within {:?}; `kubectl describe notebook {}` says more",
                    target.name, self.timeout, target.name
                )
            })??;
            let forward = Forward::listen(self.port).await?;
            let url = target.url(&notebook, forward.address()).await?;
            target.show(&url, self.output);
            let page = (Screen::is_terminal() && !self.no_browser).then(|| browse(&url, &target.screen)).transpose()?;
            let end = target.serve(&forward).await;
            drop(page);
            end
        };
        let end = tokio::select! {
            end = opened => end?,
            () = &mut stop => End::Stopped,
        };
        target.leave(&end, self.on_exit).await
    }
}

/// The Notebook that is meant, and the hands on it.
struct Target {
    client: Client,
    namespace: String,
    name: String,
    screen: Screen,
}

impl Target {
    fn notebooks(&self) -> Api<Notebook> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The Notebook as it is and will be; nothing once it is gone.
    fn watch(&self) -> impl Stream<Item = watcher::Result<Option<Notebook>>> + Unpin + use<> {
        Box::pin(watcher::watch_object(self.notebooks(), &self.name))
    }

    async fn suspend(&self, suspend: bool) -> anyhow::Result<()> {
        let parameters = PatchParams { field_manager: Some(MANAGER.to_owned()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({"spec": {"suspend": suspend}}));
        self.notebooks().patch(&self.name, &parameters, &patch).await?;
        Ok(())
    }

    async fn resume(&self) -> anyhow::Result<()> {
        let notebook = self.notebooks().get_opt(&self.name).await.context("look for the Notebook")?;
        let Some(notebook) = notebook else {
            let known = self.notebooks().list(&ListParams::default()).await.context("list the Notebooks")?;
            let names: Vec<_> = known.iter().map(ResourceExt::name_any).collect();
            let there = if names.is_empty() { "there is none".to_owned() } else { format!("there are: {}", names.join(", ")) };
            bail!("no Notebook `{}` in namespace `{}`; {there}", self.name, self.namespace);
        };
        if notebook.spec.suspend == Some(true) {
            self.suspend(false).await.context("resume the Notebook")?;
            self.screen.step("suspended: resuming");
        }
        Ok(())
    }

    /// Waits until it answers, and says what it waits for whenever that changes.
    async fn ready(&self) -> anyhow::Result<Notebook> {
        let mut changes = self.watch();
        let mut said = String::new();
        while let Some(change) = changes.next().await {
            // A lost watch is taken up again by itself.
            let Ok(change) = change else { continue };
            let Some(notebook) = change else { bail!("Notebook `{}` was deleted", self.name) };
            let (is_ready, now) = state(&notebook);
            if now != said {
                self.screen.step(&now);
                said = now;
            }
            if is_ready {
                return Ok(notebook);
            }
        }
        bail!("the watch of Notebook `{}` ended", self.name)
    }

    /// The address with the token. The token is read with the rights of whoever runs this command.
    async fn url(&self, notebook: &Notebook, address: std::net::SocketAddr) -> anyhow::Result<String> {
        let page = format!("http://{address}/lab");
        let secret = notebook.status.as_ref().and_then(|status| status.token_secret.as_deref());
        let own = notebook.spec.env.as_ref().and_then(|env| env.get("NOTEBOOK_TOKEN"));
        let token = match (secret, own) {
            (_, Some(own)) if own.contains("${{") => {
                self.screen.step("the token is in the Secret that spec.env.NOTEBOOK_TOKEN names; the page asks for it");
                return Ok(page);
            }
            (_, Some(own)) => own.clone(),
            (Some(secret), None) => self.token(secret).await?,
            // A Pod that was taken over has the constant of its days.
            (None, None) => "default".to_owned(),
        };
        let url = url::Url::parse_with_params(&page, [("token", token)]).context("write the address")?;
        Ok(url.into())
    }

    async fn token(&self, secret: &str) -> anyhow::Result<String> {
        let secrets = Api::<Secret>::namespaced(self.client.clone(), &self.namespace);
        let found = secrets.get(secret).await.with_context(|| format!("read the token in Secret `{secret}`"))?;
        let token = found.data.and_then(|mut data| data.remove(crate::kinds::notebook::build::TOKEN_KEY));
        let token = token
            .with_context(|| format!("Secret `{secret}` has no key `token`; delete it and suspend and resume the Notebook"))?;
        String::from_utf8(token.0).with_context(|| format!("the token in Secret `{secret}` is no text"))
    }

    fn show(&self, url: &str, output: Output) {
        match output {
            Output::Text => Screen::result(url),
            Output::Json => Screen::result(&json!({"namespace": self.namespace, "name": self.name, "url": url}).to_string()),
        }
        self.screen.step("ready; Ctrl-C ends this connection");
    }

    /// Forwards until the Notebook is suspended or gone.
    async fn serve(&self, forward: &Forward) -> anyhow::Result<End> {
        let pods = Api::<Pod>::namespaced(self.client.clone(), &self.namespace);
        let pod = names::notebook(&self.name);
        let gone = async {
            let mut changes = self.watch();
            loop {
                match changes.next().await {
                    Some(Ok(None)) | None => return End::Deleted,
                    Some(Ok(Some(notebook))) if notebook.spec.suspend == Some(true) => return End::Suspended,
                    Some(_) => {}
                }
            }
        };
        tokio::select! {
            end = gone => Ok(end),
            () = forward.run(&pods, &pod, PORT, &self.screen) => Ok(End::Stopped),
        }
    }

    async fn leave(&self, end: &End, on_exit: OnExit) -> anyhow::Result<ExitCode> {
        let name = &self.name;
        match (end, on_exit) {
            (End::Deleted, _) => bail!("Notebook `{name}` was deleted"),
            (End::Suspended, _) => self.screen.step("it was suspended; its workspace is kept"),
            (End::Stopped, OnExit::Suspend) => {
                self.suspend(true).await.context("suspend the Notebook")?;
                self.screen.step("suspended; its workspace is kept");
            }
            (End::Stopped, OnExit::Leave) => {
                let suspend = format!(
                    "kubectl patch notebook {name} --namespace {} --type merge --patch '{{\"spec\":{{\"suspend\":true}}}}'",
                    self.namespace
                );
                self.screen.step(&format!("it goes on running; to suspend it: {suspend}"));
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Whether it answers, for the spec as it is now, and what there is to say.
fn state(notebook: &Notebook) -> (bool, String) {
    let condition = notebook.status.iter().flat_map(|status| &status.conditions).find(|condition| condition.type_ == SERVING);
    let Some(condition) = condition else { return (false, "waiting for the operator to take it up".to_owned()) };
    if condition.observed_generation < notebook.metadata.generation {
        return (false, "waiting for the operator to see the change".to_owned());
    }
    let text = match condition.message.as_str() {
        "" => condition.reason.clone(),
        message => format!("{}: {message}", condition.reason),
    };
    (condition.status == "True", text)
}

/// Ctrl-C, or a polite end.
async fn stop() {
    let terminated = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut terminate) => drop(terminate.recv().await),
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = tokio::signal::ctrl_c() => drop(result),
        () = terminated => {}
    }
}

/// Starts the browser at a page that only this user can read: an argument of a process can be read by everybody.
fn browse(url: &str, screen: &Screen) -> anyhow::Result<tempfile::NamedTempFile> {
    let page = tempfile::Builder::new().prefix("notebook-").suffix(".html").tempfile().context("make the page that leads on")?;
    let text = format!("<!doctype html><meta http-equiv=\"refresh\" content=\"0; url={url}\"><a href=\"{url}\">Notebook</a>\n");
    std::fs::write(page.path(), text).context("write the page that leads on")?;
    let program = if cfg!(target_os = "macos") { "open" } else { "xdg-open" };
    let started = tokio::process::Command::new(program)
        .arg(page.path())
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    if started.is_err() {
        screen.step("no browser could be started: open the address above");
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn notebook(generation: i64, status: &serde_json::Value) -> Notebook {
        let metadata = json!({"name": "lab", "generation": generation});
        serde_json::from_value(
            json!({"apiVersion": "substratus.ai/v1", "kind": "Notebook", "metadata": metadata, "spec": {}, "status": status}),
        )
        .unwrap()
    }

    #[test]
    fn readiness_of_an_older_spec_does_not_count() {
        let serving = json!({"ready": true, "conditions": [{"type": "Serving", "status": "True", "reason": "PodReady", "message": "",
            "observedGeneration": 1, "lastTransitionTime": "2026-01-01T00:00:00Z"}]});
        assert_eq!(state(&notebook(1, &serving)), (true, "PodReady".to_owned()));
        assert!(!state(&notebook(2, &serving)).0);
        assert!(!state(&notebook(1, &json!({"ready": false}))).0);
    }

    #[test]
    fn times_are_read_as_people_write_them() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert!(duration("-1m").is_err());
        assert!(duration("soon").is_err());
    }
}
