//! Asks Jupyter's API what it knows of its use, in a way that is no use itself. What the answers mean is decided elsewhere.

use std::time::Duration;

use http::StatusCode;
use url::Url;

use super::usage::{Usage, read};

/// What an answer may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 1 << 20;
/// Asks for the kernels and terminals without being taken for somebody who uses them.
const UNTRACKED: &str = "no_track_activity=1";

/// A Jupyter server.
#[derive(Debug)]
pub struct Jupyter {
    client: reqwest::Client,
    base: Url,
    token: String,
}

/// What is not known counts as use.
#[derive(Debug, thiserror::Error)]
pub enum Unknown {
    /// No answer.
    #[error("Jupyter does not answer (yet), so this Notebook is not suspended")]
    Silent(#[source] reqwest::Error),
    /// There is no such API.
    #[error("this image has no Jupyter API at {0}, so this Notebook is never suspended")]
    NoApi(&'static str),
    /// It refuses.
    #[error("Jupyter answered {1} at {0}, so this Notebook is not suspended")]
    Status(&'static str, StatusCode),
    /// It says something else.
    #[error("what Jupyter answers is not understood, so this Notebook is not suspended: {0}")]
    Answer(String),
}

impl Jupyter {
    /// The server at `base` that wants `token`.
    pub fn new(base: &Url, token: &str) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(TIMEOUT)
            .timeout(TIMEOUT)
            .build()?;
        Ok(Self { client, base: base.clone(), token: token.to_owned() })
    }

    /// How it is used at this moment.
    pub async fn usage(&self) -> Result<Usage, Unknown> {
        let known = |path, answer: Option<Vec<u8>>| answer.ok_or(Unknown::NoApi(path));
        let status = known("/api/status", self.get("/api/status").await?)?;
        let kernels = known("/api/kernels", self.get("/api/kernels").await?)?;
        // A server without terminals has no such path.
        let terminals = self.get("/api/terminals").await?;
        read(&status, &kernels, terminals.as_deref()).map_err(Unknown::Answer)
    }

    /// The answer; nothing where there is no such path.
    async fn get(&self, path: &'static str) -> Result<Option<Vec<u8>>, Unknown> {
        let mut url = self.base.clone();
        url.set_path(path);
        url.set_query(Some(UNTRACKED));
        let mut request = self.client.get(url);
        if !self.token.is_empty() {
            request = request.header(http::header::AUTHORIZATION, format!("token {}", self.token));
        }
        let mut response = request.send().await.map_err(Unknown::Silent)?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::NOT_FOUND => return Ok(None),
            other => return Err(Unknown::Status(path, other)),
        }
        let mut answer = Vec::new();
        while let Some(piece) = response.chunk().await.map_err(Unknown::Silent)? {
            answer.extend_from_slice(&piece);
            if answer.len() > MAX_ANSWER {
                return Err(Unknown::Answer(format!("{path} is over {MAX_ANSWER} bytes")));
            }
        }
        Ok(Some(answer))
    }
}
