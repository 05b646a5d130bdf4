//! Requests to a Service through the API server, which works wherever `kubectl` does. It must not know what is asked.

use anyhow::{Context as _, Result};
use http::{Method, Request, header};
use kube::Client;
use serde_json::Value;

/// The Service to ask.
#[derive(Debug, Clone, Copy)]
pub struct Service<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The port of the Service.
    pub port: u16,
}

impl Service<'_> {
    /// Sends a request to `path`, which starts with a slash, and returns the body of a good answer.
    pub async fn ask(&self, client: &Client, method: Method, path: &str, body: Option<&Value>) -> Result<String> {
        let Self { namespace, name, port } = self;
        let uri = format!("/api/v1/namespaces/{namespace}/services/{name}:{port}/proxy{path}");
        let bytes = body.map(serde_json::to_vec).transpose()?.unwrap_or_default();
        let request = Request::builder().method(method).uri(uri).header(header::CONTENT_TYPE, "application/json").body(bytes)?;
        client.request_text(request).await.with_context(|| format!("asking {name}:{port}{path} through the API server"))
    }
}
