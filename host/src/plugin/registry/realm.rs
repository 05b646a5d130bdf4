//! Who we are at a registry: the credentials themselves, or a token that its realm gives for them. Where the realm is, the registry
//! chooses; it is asked as the registry is, and nowhere near what only this machine can reach.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use serde::Deserialize;
use url::Url;

use super::{Registry, RegistryAuth, RegistryError, guarded};
use crate::worker::oci::login::{Challenge, challenge, question};

/// Bytes of a realm's answer.
const MAX_ANSWER: u64 = 256 * 1024;

#[derive(Deserialize)]
struct Answered {
    token: Option<String>,
    access_token: Option<String>,
}

impl Registry {
    /// What a request shows that pulls, or pushes. Asked for once.
    pub(super) async fn authorization(&self, pushes: bool) -> Result<Option<HeaderValue>, RegistryError> {
        let mut known = self.shown.lock().await;
        if let Some(shown) = known.get(&pushes) {
            return Ok(shown.clone());
        }
        let shown = self.ask_who_we_are(pushes).await?;
        known.insert(pushes, shown.clone());
        Ok(shown)
    }

    async fn ask_who_we_are(&self, pushes: bool) -> Result<Option<HeaderValue>, RegistryError> {
        let own = self.credentials()?;
        let api = self.root.clone();
        let response = self.get_from(api.clone(), None).await?;
        match challenge(response.headers()) {
            Some(Challenge::Bearer { realm, service }) => {
                let actions = if pushes { "pull,push" } else { "pull" };
                let scope = format!("repository:{}:{actions}", self.reference.repository());
                let url = question(&realm, service.as_deref(), &scope, &api);
                let url = url.map_err(|_| self.misled("its tokens come from something that is no URL".to_owned()))?;
                self.token(url, own).await.map(Some)
            }
            Some(Challenge::Basic) | None => Ok(own),
        }
    }

    /// A token for these credentials, or for anybody.
    async fn token(&self, url: Url, own: Option<HeaderValue>) -> Result<HeaderValue, RegistryError> {
        if url.scheme() != "https" && url.scheme() != self.root.scheme() {
            return Err(self.misled(format!("its tokens come by `{}`, and its content does not", url.scheme())));
        }
        let response = self.get_from(url, own).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::NOT_FOUND => {
                return Err(self.refused(format!("its realm answers with status {}", response.status())));
            }
            status => return Err(self.unavailable(format!("its realm answers with status {status}"))),
        }
        let body = self.body("the token", response, MAX_ANSWER).await?;
        let answered: Option<Answered> = serde_json::from_slice(&body).ok();
        let token = answered.and_then(|answered| answered.token.or(answered.access_token)).filter(|token| !token.is_empty());
        let token = token.ok_or_else(|| self.unavailable("its realm's answer holds no token".to_owned()))?;
        self.header(format!("Bearer {token}"))
    }

    async fn get_from(&self, url: Url, shown: Option<HeaderValue>) -> Result<reqwest::Response, RegistryError> {
        guarded::check(&url).map_err(|refused| self.misled(refused.to_string()))?;
        let mut request = self.http.get(url);
        if let Some(shown) = shown {
            request = request.header(AUTHORIZATION, shown);
        }
        request.send().await.map_err(|error| self.lost(&error))
    }

    fn credentials(&self) -> Result<Option<HeaderValue>, RegistryError> {
        match &self.auth {
            RegistryAuth::Anonymous => Ok(None),
            RegistryAuth::Basic { username, password } => {
                self.header(format!("Basic {}", BASE64_STANDARD.encode(format!("{username}:{password}")))).map(Some)
            }
        }
    }

    fn header(&self, text: String) -> Result<HeaderValue, RegistryError> {
        let header = HeaderValue::try_from(text);
        let mut header = header.map_err(|_| self.refused("its token holds characters that no header may have".to_owned()))?;
        header.set_sensitive(true);
        Ok(header)
    }
}
