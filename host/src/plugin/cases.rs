//! Runs a plugin's case files in the real host: its compiled component, its limits, recorded HTTP in place of a network. The
//! format is in `plugins/README.md`. It knows no plugin.

mod streams;

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, bail};
use futures::FutureExt;
use futures::future::BoxFuture;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use substratus_crds::PluginRole;

use super::types::{HttpError, HttpMethod, HttpRequest, HttpResponse, LogLevel};
use super::{HostCalls, Offline, PluginError, Plugins};

/// One case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Case {
    name: String,
    call: String,
    #[serde(default)]
    request: Value,
    cursor: Option<String>,
    path: Option<String>,
    #[serde(default)]
    previous: Value,
    /// transform: the shard, and what its inputs hold.
    #[serde(default)]
    shard: Value,
    #[serde(default)]
    inputs: Vec<String>,
    /// transform: what must have been written.
    outputs: Option<BTreeMap<String, String>>,
    #[serde(default)]
    http: VecDeque<Exchange>,
    answer: Option<Value>,
    failure: Option<Value>,
}

impl Case {
    /// A question without an expected answer.
    pub(super) fn question(call: &str, request: Value, cursor: Option<String>, path: Option<String>, previous: Value) -> Self {
        Self {
            name: String::new(),
            call: call.to_owned(),
            request,
            cursor,
            path,
            previous,
            shard: Value::Null,
            inputs: Vec::new(),
            outputs: None,
            http: VecDeque::new(),
            answer: None,
            failure: None,
        }
    }
}

/// One recorded exchange.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    #[serde(default = "get")]
    method: HttpMethod,
    url: String,
    auth: Option<String>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    error: Option<HttpError>,
}

const fn get() -> HttpMethod {
    HttpMethod::Get
}

const fn ok() -> u16 {
    200
}

/// Recorded answers in place of a network. A request out of order is an `http.error` and fails the case.
#[derive(Default)]
struct Replay {
    left: Mutex<VecDeque<Exchange>>,
    wrong: Mutex<Option<String>>,
}

impl Replay {
    fn answer(&self, request: &HttpRequest) -> Result<HttpResponse, HttpError> {
        let unexpected = |expected: String| {
            let text = format!("asked for {:?} {} (auth {:?}), {expected}", request.method, request.url, request.auth);
            self.wrong.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| text.clone());
            Err(HttpError::Invalid(text))
        };
        let next = self.left.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let Some(next) = next else { return unexpected("no exchange is left".to_owned()) };
        let auth_differs = next.auth.is_some() && next.auth != request.auth;
        if next.method != request.method || next.url != request.url || auth_differs {
            return unexpected(format!("expected {:?} {} (auth {:?})", next.method, next.url, next.auth));
        }
        match next.error {
            Some(error) => Err(error),
            None => Ok(HttpResponse {
                status: next.status,
                headers: next.headers.into_iter().collect(),
                body: next.body.into_bytes(),
            }),
        }
    }

    /// What went wrong between the guest and the recording.
    fn complaint(&self) -> Option<String> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner).take();
        let left =
            self.left.lock().unwrap_or_else(PoisonError::into_inner).front().map(|next| format!("never asked for {}", next.url));
        wrong.or(left)
    }
}

impl HostCalls for Replay {
    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        std::future::ready(self.answer(&request)).boxed()
    }

    fn log(&self, level: LogLevel, message: &str) {
        Offline.log(level, message);
    }
}

/// How one case went.
#[derive(Debug, Serialize)]
pub struct CaseResult {
    /// File name.
    pub file: String,
    /// Its `name`.
    pub name: String,
    /// Why it failed.
    pub mistake: Option<String>,
}

/// Runs every `*.yaml` of a folder, in order.
pub async fn run_all(plugins: &Plugins, digest: &str, folder: &Path) -> anyhow::Result<Vec<CaseResult>> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("read the cases in {}", folder.display()))?;
    let mut files: Vec<_> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    let mut results = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).with_context(|| format!("read {}", file.display()))?;
        let case: Case = serde_saphyr::from_str(&text).with_context(|| format!("read {}", file.display()))?;
        let mistake = run(plugins, digest, &case).await.err().map(|error| format!("{error:#}"));
        let file = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        results.push(CaseResult { file, name: case.name, mistake });
    }
    Ok(results)
}

async fn run(plugins: &Plugins, digest: &str, case: &Case) -> anyhow::Result<()> {
    let (expected_is, expected) = match (&case.answer, &case.failure) {
        (Some(answer), None) => ("answer", answer),
        (None, Some(failure)) => ("failure", failure),
        _ => bail!("give exactly one of `answer` and `failure`"),
    };
    let replay = Arc::new(Replay { left: Mutex::new(case.http.clone()), wrong: Mutex::default() });
    let calls: Arc<dyn HostCalls> = Arc::<Replay>::clone(&replay);
    let (is, got) = match ask(plugins, digest, case, calls).await {
        Ok(answer) => ("answer", answer),
        Err(AskError::Plugin(PluginError::Failure(failure))) => ("failure", serde_json::to_value(failure)?),
        Err(AskError::Plugin(error)) => return Err(error.into()),
        Err(AskError::Case(error)) => return Err(error),
    };
    if let Some(complaint) = replay.complaint() {
        bail!(complaint);
    }
    let (expected, got) = (compact(expected.clone()), compact(got));
    if is != expected_is || expected != got {
        bail!("expected {expected_is}: {expected:#}\ngot {is}: {got:#}");
    }
    Ok(())
}

/// Why a question of a case has no answer.
pub(super) enum AskError {
    /// The plugin's, or the host's.
    Plugin(PluginError),
    /// The case itself is wrong.
    Case(anyhow::Error),
}

/// Asks what a case says.
pub(super) async fn ask(plugins: &Plugins, digest: &str, case: &Case, calls: Arc<dyn HostCalls>) -> Result<Value, AskError> {
    let value = match case.call.as_str() {
        "plan" => value(plugins.plan_import(digest, &question(case, "Dataset")?, case.cursor.as_deref(), calls).await),
        "transform" => return streams::transform(plugins, digest, case, calls).await,
        "resolve" => value(plugins.resolve(digest, &question(case, "Model")?, case.cursor.as_deref(), calls).await),
        "refresh" => {
            let path = case.path.as_deref().ok_or_else(|| AskError::Case(anyhow::anyhow!("a refresh needs `path`")))?;
            if plugins.manifest(digest).map_err(AskError::Plugin)?.role == PluginRole::DatasetImporter {
                value(plugins.refresh_import(digest, &question(case, "Dataset")?, path, calls).await)
            } else {
                value(plugins.refresh(digest, &question(case, "Model")?, path, calls).await)
            }
        }
        "place" => {
            let previous = read(with_defaults(case.previous.clone(), placement_defaults())).map_err(AskError::Case)?;
            let previous: Option<super::types::Placement> = previous;
            value(plugins.place(digest, &question(case, "Model")?, previous.as_ref()).await)
        }
        "fit" => value(plugins.fit(digest, &question(case, "Server")?).await),
        "serve" => value(plugins.serve(digest, &question(case, "Server")?).await),
        other => {
            return Err(AskError::Case(anyhow::anyhow!(
                "there is no call `{other}`: resolve, refresh, plan, transform, place, fit or serve"
            )));
        }
    };
    value.map_err(AskError::Plugin)
}

fn value<T: Serialize>(result: Result<T, PluginError>) -> Result<Value, PluginError> {
    result.and_then(|answer| {
        serde_json::to_value(answer)
            .map_err(|error| PluginError::Engine { action: "write an answer as JSON", reason: error.to_string() })
    })
}

fn question<T: DeserializeOwned + Serialize>(case: &Case, kind: &str) -> Result<T, AskError> {
    let question: T = read(with_defaults(case.request.clone(), request_defaults(kind))).map_err(AskError::Case)?;
    match unknown_member(&case.request, &json!(question), "request") {
        Some(member) => Err(AskError::Case(anyhow::anyhow!("there is no {member}"))),
        None => Ok(question),
    }
}

fn read<T: DeserializeOwned>(value: Value) -> anyhow::Result<T> {
    serde_path_to_error::deserialize(value).context("read the request")
}

/// The first member of `given` that the record, as read, does not have: a misspelt option would otherwise be absent.
fn unknown_member(given: &Value, known: &Value, at: &str) -> Option<String> {
    match (given, known) {
        (Value::Object(given), Value::Object(known)) => given.iter().find_map(|(name, value)| {
            let at = format!("{at}.{name}");
            known.get(name).map_or_else(|| Some(at.clone()), |known| unknown_member(value, known, &at))
        }),
        (Value::Array(given), Value::Array(known)) => {
            given.iter().zip(known).find_map(|(given, known)| unknown_member(given, known, at))
        }
        _ => None,
    }
}

/// Marks defaults of a record that may be absent as a whole.
const OPTIONAL: &str = "(optional)";

/// What a case may leave out. One table for all calls: members that a record does not have are ignored when it is read.
fn request_defaults(kind: &str) -> Value {
    let mut defaults = json!({
        "subject": {"kind": kind, "namespace": "default", "name": "example"},
        "config": "{}", "extensions": [], "params": [], "env": [], "nodes": [],
        "files": {"include": [], "exclude": []},
        "count": 1, "cloud": "",
        "model": {"name": "example", "mount_path": "/content/model"},
    });
    if let (true, Some(members)) = (kind == "Server", defaults.as_object_mut()) {
        members.insert("gpu".to_owned(), json!({OPTIONAL: true, "count": 1}));
    }
    defaults
}

/// A shard to be mapped.
fn shard_defaults() -> Value {
    json!({"name": "example", "inputs": [], "decoding": {"Rows": {}}, "mapped": true, "output": "", "context": "{}",
        "extensions": []})
}

fn placement_defaults() -> Value {
    json!({OPTIONAL: true, "node_selector": [], "tolerations": [], "limits": [], "claims": [], "reason": "",
        "alternatives": [], "extensions": []})
}

/// Fills what `given` leaves out, recursively through objects.
fn with_defaults(given: Value, defaults: Value) -> Value {
    match (given, defaults) {
        (Value::Null, Value::Object(defaults)) if defaults.contains_key(OPTIONAL) => Value::Null,
        (Value::Null, Value::Object(defaults)) => with_defaults(json!({}), Value::Object(defaults)),
        (Value::Object(mut given), Value::Object(defaults)) => {
            for (name, default) in defaults.into_iter().filter(|(name, _)| name != OPTIONAL) {
                let value = given.remove(&name).unwrap_or(Value::Null);
                given.insert(name, with_defaults(value, default));
            }
            Value::Object(given)
        }
        (Value::Null, default) => default,
        (given, _) => given,
    }
}

/// Without nulls and empty lists: what a case may leave out of an answer.
fn compact(value: Value) -> Value {
    match value {
        Value::Object(members) => {
            let members = members.into_iter().map(|(name, member)| (name, compact(member)));
            let kept = members.filter(|(_, member)| !member.is_null() && member.as_array().is_none_or(|items| !items.is_empty()));
            Value::Object(kept.collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(compact).collect()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::super::types::ServeRequest;
    use super::*;

    fn case(text: &str) -> Case {
        serde_saphyr::from_str(text).unwrap()
    }

    #[test]
    fn a_misspelt_member_is_a_mistake() {
        let given = case("{name: a, call: fit, request: {model: {fromat: gguf}}, answer: {}}");
        let Err(AskError::Case(error)) = question::<ServeRequest>(&given, "Server") else { panic!("it is read") };
        assert_eq!(error.to_string(), "there is no request.model.fromat");
    }

    #[test]
    fn defaults_fill_records_but_no_absent_option() {
        let request = |text: &str| {
            let Ok(request) = question::<ServeRequest>(&case(text), "Server") else { panic!("not read") };
            request
        };
        let plain = request("{name: a, call: fit, request: {model: {format: gguf}}, answer: {}}");
        assert_eq!((plain.model.name.as_str(), plain.gpu.is_none()), ("example", true));
        let gpu = request("{name: a, call: fit, request: {gpu: {vendor: nvidia}}, answer: {}}");
        assert_eq!(gpu.gpu.map(|gpu| gpu.count), Some(1));
    }

    #[test]
    fn recordings_are_consumed_in_order() {
        let given = case("{name: a, call: resolve, http: [{url: 'https://a/', body: x}], answer: {}}");
        let replay = || Replay { left: Mutex::new(given.http.clone()), wrong: Mutex::default() };
        let request = |url: &str| HttpRequest {
            method: HttpMethod::Get,
            url: url.into(),
            headers: vec![],
            body: None,
            auth: None,
            follow: true,
        };
        assert_eq!(replay().complaint().as_deref(), Some("never asked for https://a/"));
        let good = replay();
        assert_eq!(good.answer(&request("https://a/")).unwrap().body, b"x");
        assert_eq!(good.complaint(), None);
        let bad = replay();
        assert!(bad.answer(&request("https://b/")).is_err());
        let complaint = bad.complaint().unwrap();
        assert!(
            complaint.contains("https://b/") && complaint.contains("expected") && complaint.contains("https://a/"),
            "{complaint}"
        );
    }
}
