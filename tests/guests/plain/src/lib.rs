//! A model loader that behaves: one file at a plain HTTP address. Test material, for a plugin that no image brings; it knows no hub.

use substratus_plugin::{
    Failure, http,
    http::{HostHttp, Http, Method, Request as HttpRequest},
    invalid,
    loader::{File, Guest, HttpOrigin, Origin, PlanPage, Request},
};

/// The file that `spec.source` names.
pub fn resolve(request: &Request) -> Result<PlanPage, Failure> {
    let file = file(request)?;
    Ok(PlanPage {
        revision: "1".into(),
        files: vec![file],
        facts: None,
        warnings: Vec::new(),
        next: None,
        extensions: Vec::new(),
    })
}

fn file(request: &Request) -> Result<File, Failure> {
    let source = request.source.as_deref().unwrap_or_default();
    let address = source.strip_prefix("plain://").ok_or_else(|| invalid("spec.source", "must start with plain://"))?;
    let name = address.rsplit('/').next().unwrap_or_default();
    let url = format!("http://{address}");
    let head = HttpRequest { method: Method::Head, follow: false, ..http::get(&url, None) };
    let answer = HostHttp.send(&head).map_err(|error| http::no_answer(error, "asking for the size"))?;
    // A large file lies somewhere else, and its size is said here.
    let size = http::header(&answer, "x-linked-size").or_else(|| http::header(&answer, "content-length"));
    Ok(File {
        path: name.into(),
        size: size.and_then(|size| size.parse().ok()),
        digest: None,
        origin: Origin::Http(HttpOrigin { url, headers: Vec::new(), auth: None, expires: None }),
    })
}

struct Plugin;

impl Guest for Plugin {
    fn resolve(request: Request, _: Option<String>) -> Result<PlanPage, Failure> {
        resolve(&request)
    }

    fn refresh(request: Request, _: String) -> Result<File, Failure> {
        file(&request)
    }
}

substratus_plugin::export_model_loader!(Plugin);
