//! Which cluster and namespace a user's command means, as `kubectl` has it. Knows no object.

use std::path::PathBuf;

use anyhow::Context as _;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

/// The cluster, as for kubectl.
#[derive(Debug, clap::Args)]
pub struct ClusterArgs {
    /// Namespace; absent, the context's own
    #[arg(short, long)]
    namespace: Option<String>,
    /// Context of the kubeconfig file
    #[arg(long)]
    context: Option<String>,
    /// Kubeconfig file; absent, KUBECONFIG or ~/.kube/config
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

impl ClusterArgs {
    /// A client, and the namespace to work in.
    pub async fn connect(self) -> anyhow::Result<(Client, String)> {
        let options = KubeConfigOptions { context: self.context, ..KubeConfigOptions::default() };
        let config = match &self.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file).with_context(|| format!("read {}", file.display()))?;
                Config::from_custom_kubeconfig(read, &options).await
            }
            None => Config::from_kubeconfig(&options).await,
        };
        let config = config.context("find the cluster; `kubectl config get-contexts` lists those you have")?;
        let namespace = self.namespace.unwrap_or_else(|| config.default_namespace.clone());
        Ok((Client::try_from(config).context("make a client for the cluster")?, namespace))
    }
}
