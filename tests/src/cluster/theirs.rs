//! A cluster that somebody else runs: where it is, what it is made of, and which of our objects are really ours there.
//! It must not know what is installed.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Api, ListParams};
use kube::config::Kubeconfig;

use super::{Cluster, Mode, Ready};

/// One context of a kubeconfig.
#[derive(Debug, Clone)]
pub struct Theirs {
    /// Its name.
    pub context: String,
    /// Where the API server is.
    pub server: String,
    kubeconfig: Kubeconfig,
}

/// What a cluster is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// The API server's version.
    pub version: String,
    /// Nodes that take pods.
    pub nodes: usize,
    /// Their processors, as Kubernetes calls them.
    pub architectures: Vec<String>,
}

impl Theirs {
    /// What `kubectl` would use now: `$KUBECONFIG` or `~/.kube/config`, with its current context.
    pub fn current() -> Result<Self> {
        let read = Kubeconfig::read().context("reading your kubeconfig; set KUBECONFIG to one that works with kubectl")?;
        Self::of(read)
    }

    /// The current context of a kubeconfig that is text.
    pub fn from_text(text: &str) -> Result<Self> {
        Self::of(Kubeconfig::from_yaml(text).context("reading a kubeconfig")?)
    }

    /// Keeps one context and what it names: whoever changes the current context meanwhile does not change where we work.
    fn of(mut kubeconfig: Kubeconfig) -> Result<Self> {
        let context = kubeconfig.current_context.clone().filter(|name| !name.is_empty());
        let context = context.context("your kubeconfig has no current context; choose one with `kubectl config use-context`")?;
        kubeconfig.contexts.retain(|named| named.name == context);
        let named = kubeconfig.contexts.first().and_then(|named| named.context.clone());
        let named = named.with_context(|| format!("your kubeconfig does not describe its current context `{context}`"))?;
        kubeconfig.clusters.retain(|cluster| cluster.name == named.cluster);
        kubeconfig.auth_infos.retain(|user| named.user.as_ref() == Some(&user.name));
        let server = kubeconfig.clusters.first().and_then(|cluster| cluster.cluster.as_ref()?.server.clone());
        let server = server.with_context(|| format!("your kubeconfig names no server for the context `{context}`"))?;
        Ok(Self { context, server, kubeconfig })
    }

    /// Writes that one context below `folder`, readable for us alone, and connects.
    pub fn open(&self, folder: &Path) -> Result<Cluster> {
        fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
        let path = folder.join("kubeconfig");
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("creating {}", path.display()))?;
        // JSON is YAML too.
        file.write_all(&serde_json::to_vec(&self.kubeconfig)?).with_context(|| format!("writing {}", path.display()))?;
        let ready =
            Ready { mode: Mode::Node, dir: folder.to_owned(), netns: None, kubeconfig: path, node_address: None, registry: None };
        Cluster::open(ready, None).with_context(|| format!("connecting to the context `{}`", self.context))
    }
}

impl Facts {
    /// Asks the API server.
    pub async fn of(cluster: &Cluster) -> Result<Self> {
        let client = cluster.client();
        let version = client.apiserver_version().await.context("asking the API server for its version")?.git_version;
        let listed = Api::<Node>::all(client).list(&ListParams::default()).await.context("listing the nodes")?;
        let nodes: Vec<Node> = listed.items.into_iter().filter(takes_pods).collect();
        let architecture = |node: &Node| Some(node.status.as_ref()?.node_info.as_ref()?.architecture.clone());
        let mut architectures: Vec<String> = nodes.iter().filter_map(architecture).collect();
        architectures.sort_unstable();
        architectures.dedup();
        Ok(Self { version, nodes: nodes.len(), architectures })
    }

    /// Whether images of this machine run there, from a folder of a node.
    pub fn require(&self, architecture: &str, shared_folder: bool) -> Result<()> {
        ensure!(self.nodes > 0, "no node of this cluster takes pods; look at `kubectl get nodes`");
        if let Some(other) = self.architectures.iter().find(|other| *other != architecture) {
            bail!("this cluster has nodes for {other}, and the images that are built here run on {architecture} only");
        }
        ensure!(
            self.nodes == 1 || shared_folder,
            "artifacts lie in a folder of the node, and this cluster has {} nodes: name a folder that all nodes share with \
             BUCKET=/path, or use a cluster of one node",
            self.nodes
        );
        Ok(())
    }
}

/// Whether a pod that tolerates nothing can be placed there.
fn takes_pods(node: &Node) -> bool {
    let Some(spec) = &node.spec else { return true };
    let repels = spec.taints.iter().flatten().any(|taint| matches!(taint.effect.as_str(), "NoSchedule" | "NoExecute"));
    spec.unschedulable != Some(true) && !repels
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const TWO: &str = "
apiVersion: v1
kind: Config
current-context: b
clusters: [{name: one, cluster: {server: 'https://one.test'}}, {name: two, cluster: {server: 'https://two.test'}}]
users: [{name: anna, user: {token: secret-of-anna}}, {name: bert, user: {token: secret-of-bert}}]
contexts: [{name: a, context: {cluster: one, user: anna}}, {name: b, context: {cluster: two, user: bert}}]
";

    #[test]
    fn only_the_current_context_is_taken_along() {
        let theirs = Theirs::from_text(TWO).unwrap();
        assert_eq!((theirs.context.as_str(), theirs.server.as_str()), ("b", "https://two.test"));
        let kept = serde_json::to_string(&theirs.kubeconfig).unwrap();
        assert!(kept.contains("secret-of-bert") && !kept.contains("anna") && !kept.contains("one.test"), "{kept}");
        assert_eq!(Theirs::from_text(&kept).unwrap().server, theirs.server, "what is written can be read");
    }

    #[test]
    fn a_kubeconfig_that_leads_nowhere_says_so() {
        for (from, to, said) in [
            ("current-context: b", "", "no current context"),
            ("current-context: b", "current-context: c", "does not describe"),
            ("name: two, cluster: {server", "name: three, cluster: {server", "names no server"),
        ] {
            let error = Theirs::from_text(&TWO.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn clusters_that_cannot_run_the_demo_are_refused_with_a_way_out() {
        let facts = |nodes, of: &[&str]| Facts {
            version: "v1.34.4".to_owned(),
            nodes,
            architectures: of.iter().map(ToString::to_string).collect(),
        };
        let refusal = |facts: &Facts, shared| facts.require("amd64", shared).unwrap_err().to_string();
        assert!(refusal(&facts(0, &[]), false).contains("no node"));
        assert!(refusal(&facts(1, &["arm64"]), false).contains("arm64"));
        assert!(refusal(&facts(3, &["amd64"]), false).contains("BUCKET="));
        facts(3, &["amd64"]).require("amd64", true).unwrap();
        facts(1, &["amd64"]).require("amd64", false).unwrap();
    }

    #[test]
    fn nodes_that_repel_pods_do_not_count() {
        let node = |spec| serde_json::from_value::<Node>(json!({"metadata": {"name": "n"}, "spec": spec})).unwrap();
        assert!(takes_pods(&node(json!({}))));
        assert!(!takes_pods(&node(json!({"unschedulable": true}))));
        assert!(!takes_pods(&node(json!({"taints": [{"key": "control-plane", "effect": "NoSchedule"}]}))));
        assert!(takes_pods(&node(json!({"taints": [{"key": "slow", "effect": "PreferNoSchedule"}]}))));
    }
}
