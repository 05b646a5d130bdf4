//! The operator's own account, with its rights and no others, and the count of what it writes. Must not know what it writes.
//!
//! The API server counts requests by the flow schema that they match; one for the writes of one account counts exactly those.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::install;

const ACCOUNT: &str = "substratus";
const NAMESPACE: &str = "substratus";
const SCHEMA: &str = "operator-writes";

/// Counts the operator's writes from now on.
pub(super) async fn count_writes(cluster: &Cluster) -> Result<()> {
    let everything = json!({"apiGroups": ["*"], "resources": ["*"], "namespaces": ["*"], "clusterScope": true,
        "verbs": ["create", "update", "patch", "delete", "deletecollection"]});
    let subject = json!({"kind": "ServiceAccount", "serviceAccount": {"name": ACCOUNT, "namespace": NAMESPACE}});
    let schema = json!({
        "apiVersion": "flowcontrol.apiserver.k8s.io/v1", "kind": "FlowSchema", "metadata": {"name": SCHEMA},
        // Before all others but the exempt administrators, and without a limit that would slow the operator down.
        "spec": {"matchingPrecedence": 2, "priorityLevelConfiguration": {"name": "exempt"},
            "rules": [{"subjects": [subject], "resourceRules": [everything]}]},
    });
    install::apply(&cluster.client(), &[serde_json::from_value(schema)?]).await
}

/// What the operator wrote so far.
pub(super) async fn writes(cluster: &Cluster) -> Result<u64> {
    let request = http::Request::get("/metrics").body(Vec::new())?;
    let text = cluster.client().request_text(request).await.context("reading the API server's metrics")?;
    counted(&text).context("reading a count of the API server's metrics")
}

/// Of all priority levels; no line means that nothing was counted yet.
fn counted(metrics: &str) -> Option<u64> {
    let label = format!("flow_schema=\"{SCHEMA}\"");
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("apiserver_flowcontrol_dispatched_requests_total{") && line.contains(&label));
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count, written as a floating-point number")]
    lines.map(|line| line.rsplit_once(' ').and_then(|(_, number)| number.parse::<f64>().ok()).map(|number| number as u64)).sum()
}

/// A kubeconfig with a token of the account, as a pod would have it.
pub(super) async fn kubeconfig(cluster: &Cluster, path: &Path) -> Result<()> {
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client(), NAMESPACE);
    let wanted = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(4 * 3600), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer = accounts.create_token_request(ACCOUNT, &PostParams::default(), &wanted).await.context("asking for a token")?;
    let token = answer.status.context("a token request without token")?.token;
    let mut config: Value =
        serde_json::from_slice(&fs::read(cluster.kubeconfig())?).context("reading the administrator's kubeconfig")?;
    *config.pointer_mut("/users/0/user").context("a kubeconfig without user")? = json!({"token": token});
    fs::write(path, config.to_string()).with_context(|| format!("writing {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_schema_counts() {
        let metrics = "# HELP x\n\
            apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"operator-writes\",priority_level=\"exempt\"} 41\n\
            apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"operator-writes\",priority_level=\"global\"} 1\n\
            apiserver_flowcontrol_dispatched_requests_total{flow_schema=\"exempt\",priority_level=\"exempt\"} 1e+06\n";
        assert_eq!(counted(metrics), Some(42));
        assert_eq!(counted(""), Some(0));
    }
}
