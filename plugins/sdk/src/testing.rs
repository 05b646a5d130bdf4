//! Runs a plugin's case files natively. The format is in `plugins/README.md`; the host runs the same files in its sandbox.
//! It knows no plugin.

#![allow(clippy::panic, clippy::missing_panics_doc, reason = "a test helper reports by panicking")]

mod defaults;
pub mod streams;

use std::{cell::RefCell, collections::BTreeMap, collections::VecDeque, fs, path::Path};

use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use self::defaults::{compact, placement_defaults, request_defaults, shard_defaults, unknown_member, with_defaults};
use self::streams::{MemoryInput, MemoryOutputs};
use crate::{
    Failure, adapter, gpu,
    http::{Error, Http, Method, Request, Response},
    importer, io, loader,
};

/// One case file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
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

/// One recorded exchange.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Exchange {
    #[serde(default = "get")]
    method: Method,
    url: String,
    auth: Option<String>,
    #[serde(default = "ok")]
    status: u16,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    #[serde(default)]
    body: String,
    error: Option<Error>,
}

fn get() -> Method {
    Method::Get
}

fn ok() -> u16 {
    200
}

/// Recorded answers in place of a network. A request out of order is an `http.error` and fails the case.
pub struct Replay {
    left: RefCell<VecDeque<Exchange>>,
    wrong: RefCell<Option<String>>,
}

impl Http for Replay {
    fn send(&self, request: &Request) -> Result<Response, Error> {
        let unexpected = |expected: String| {
            let text = format!("asked for {:?} {} (auth {:?}), {expected}", request.method, request.url, request.auth);
            self.wrong.borrow_mut().get_or_insert_with(|| text.clone());
            Err(Error::Invalid(text))
        };
        let Some(next) = self.left.borrow_mut().pop_front() else {
            return unexpected("no exchange is left".into());
        };
        let auth_differs = next.auth.is_some() && next.auth != request.auth;
        if next.method != request.method || next.url != request.url || auth_differs {
            return unexpected(format!("expected {:?} {} (auth {:?})", next.method, next.url, next.auth));
        }
        match next.error {
            Some(error) => Err(error),
            None => {
                Ok(Response { status: next.status, headers: next.headers.into_iter().collect(), body: next.body.into_bytes() })
            }
        }
    }
}

/// Runs a loader's cases below `cases/` of the crate (`env!("CARGO_MANIFEST_DIR")`).
pub fn loader_cases(
    crate_dir: &str,
    resolve: impl Fn(&dyn Http, &loader::Request, Option<&str>) -> Result<loader::PlanPage, Failure>,
    refresh: impl Fn(&loader::Request, &str) -> Result<loader::File, Failure>,
) {
    run(crate_dir, "Model", |case, http| match case.call.as_str() {
        "resolve" => Ok(outcome(resolve(http, &question(case, "Model")?, case.cursor.as_deref()))),
        "refresh" => {
            let path = case.path.as_deref().ok_or("a refresh needs `path`")?;
            Ok(outcome(refresh(&question(case, "Model")?, path)))
        }
        other => Err(format!("a model loader has no call {other:?}")),
    });
}

/// Runs an importer's cases.
pub fn importer_cases(
    crate_dir: &str,
    plan: impl Fn(&dyn Http, &importer::Request, Option<&str>) -> Result<importer::PlanPage, Failure>,
    refresh: impl Fn(&importer::Request, &str) -> Result<importer::File, Failure>,
    transform: impl Fn(
        &importer::Request,
        &importer::Shard,
        &[&dyn io::Input],
        &dyn io::Outputs,
    ) -> Result<importer::ShardReport, Failure>,
) {
    run(crate_dir, "Dataset", |case, http| match case.call.as_str() {
        "plan" => Ok(outcome(plan(http, &question(case, "Dataset")?, case.cursor.as_deref()))),
        "refresh" => {
            let path = case.path.as_deref().ok_or("a refresh needs `path`")?;
            Ok(outcome(refresh(&question(case, "Dataset")?, path)))
        }
        "transform" => {
            let shard: importer::Shard = read(with_defaults(case.shard.clone(), shard_defaults()))?;
            let inputs: Vec<_> = case.inputs.iter().map(|text| MemoryInput::new(text)).collect();
            let inputs: Vec<&dyn io::Input> = inputs.iter().map(|input| input as &dyn io::Input).collect();
            let outputs = MemoryOutputs::default();
            let report = transform(&question(case, "Dataset")?, &shard, &inputs, &outputs);
            if report.is_ok() {
                outputs.compare(case.outputs.as_ref())?;
            }
            Ok(outcome(report))
        }
        other => Err(format!("a dataset importer has no call {other:?}")),
    });
}

/// A shard with nothing in it but the defaults of the case format, for unit tests.
pub fn shard(members: Value) -> importer::Shard {
    read(with_defaults(members, shard_defaults())).unwrap_or_else(|error| panic!("shard: {error}"))
}

/// Runs a policy's cases.
pub fn policy_cases(crate_dir: &str, place: impl Fn(&gpu::Request, Option<gpu::Placement>) -> Result<gpu::Placement, Failure>) {
    run(crate_dir, "Model", |case, _| match case.call.as_str() {
        "place" => {
            let previous = read(with_defaults(case.previous.clone(), placement_defaults()))?;
            Ok(outcome(place(&question(case, "Model")?, previous)))
        }
        other => Err(format!("a GPU policy has no call {other:?}")),
    });
}

/// Runs an adapter's cases.
pub fn adapter_cases(
    crate_dir: &str,
    fit: impl Fn(&adapter::Request) -> adapter::Fitness,
    serve: impl Fn(&adapter::Request) -> Result<adapter::Container, Failure>,
) {
    run(crate_dir, "Server", |case, _| match case.call.as_str() {
        "fit" => Ok(outcome(Ok::<_, Failure>(fit(&question(case, "Server")?)))),
        "serve" => Ok(outcome(serve(&question(case, "Server")?))),
        other => Err(format!("a server adapter has no call {other:?}")),
    });
}

/// What `plugin.yaml` says as `default` of its configuration: a plugin's own defaults must be the same.
pub fn manifest_defaults(crate_dir: &str) -> Value {
    let manifest: Value = read_yaml(&Path::new(crate_dir).join("plugin.yaml"));
    schema_defaults(manifest.get("config").unwrap_or(&Value::Null))
}

/// A request with nothing in it but the defaults of the case format, for unit tests.
pub fn request<T: DeserializeOwned>(kind: &str, members: Value) -> T {
    read(with_defaults(members, request_defaults(kind))).unwrap_or_else(|error| panic!("request: {error}"))
}

fn schema_defaults(schema: &Value) -> Value {
    let properties = schema.get("properties").and_then(Value::as_object).cloned().unwrap_or_default();
    let filled = properties.into_iter().filter_map(|(name, property)| {
        let value = property.get("default").cloned().or_else(|| {
            let nested = schema_defaults(&property);
            nested.as_object().is_some_and(|members| !members.is_empty()).then_some(nested)
        })?;
        Some((name, value))
    });
    Value::Object(filled.collect())
}

fn run(crate_dir: &str, kind: &str, ask: impl Fn(&Case, &Replay) -> Result<Outcome, String>) {
    let folder = Path::new(crate_dir).join("cases");
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("reading {}: {error}", folder.display()))
        .filter_map(Result::ok)
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "yaml"))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no case in {}", folder.display());
    let mut wrong = Vec::new();
    for file in files {
        let case: Case = read_yaml(&file);
        if let Err(reason) = check(&case, &ask) {
            wrong.push(format!("{} ({}, {kind}): {reason}", file.display(), case.name));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

type Outcome = (&'static str, Value);

fn check(case: &Case, ask: impl Fn(&Case, &Replay) -> Result<Outcome, String>) -> Result<(), String> {
    let replay = Replay { left: RefCell::new(case.http.clone()), wrong: RefCell::new(None) };
    let (is, got) = ask(case, &replay)?;
    if let Some(wrong) = replay.wrong.take() {
        return Err(wrong);
    }
    if let Some(left) = replay.left.borrow().front() {
        return Err(format!("never asked for {}", left.url));
    }
    let (expected_is, expected) = match (&case.answer, &case.failure) {
        (Some(answer), None) => ("answer", answer),
        (None, Some(failure)) => ("failure", failure),
        _ => return Err("give exactly one of `answer` and `failure`".into()),
    };
    let (expected, got) = (compact(expected.clone()), compact(got));
    if is == expected_is && expected == got {
        return Ok(());
    }
    Err(format!("expected {expected_is}: {expected:#}\ngot {is}: {got:#}"))
}

fn outcome<T: Serialize>(result: Result<T, Failure>) -> Outcome {
    match result {
        Ok(answer) => ("answer", json!(answer)),
        Err(failure) => ("failure", json!(failure)),
    }
}

fn question<T: DeserializeOwned + Serialize>(case: &Case, kind: &str) -> Result<T, String> {
    let question = read(with_defaults(case.request.clone(), request_defaults(kind)))?;
    match unknown_member(&case.request, &json!(question), "request") {
        Some(member) => Err(format!("there is no {member}")),
        None => Ok(question),
    }
}

fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn read_yaml<T: DeserializeOwned>(file: &Path) -> T {
    let text = fs::read_to_string(file).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()));
    serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("reading {}: {error}", file.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(text: &str) -> Case {
        serde_saphyr::from_str(text).unwrap()
    }

    fn answers(value: Value) -> impl Fn(&Case, &Replay) -> Result<Outcome, String> {
        move |_, _| Ok(("answer", value.clone()))
    }

    #[test]
    fn what_is_left_out_is_absent() {
        let given = case("{name: a, call: serve, answer: {image: x}}");
        assert_eq!(check(&given, answers(json!({"image": "x", "shm": null, "args": []}))), Ok(()));
        assert!(check(&given, answers(json!({"image": "x", "shm": 1}))).is_err());
        assert!(check(&given, answers(json!({}))).is_err());
    }

    #[test]
    fn an_exchange_left_over_or_out_of_order_fails() {
        let given = case("{name: a, call: resolve, http: [{url: 'https://a/', body: x}], answer: {}}");
        assert!(check(&given, answers(json!({}))).unwrap_err().contains("never asked for https://a/"));
        let asks = |url: &'static str| {
            move |_: &Case, http: &Replay| {
                let _ = http.send(&crate::http::get(url, None));
                Ok(("answer", json!({})))
            }
        };
        assert_eq!(check(&given, asks("https://a/")), Ok(()));
        assert!(check(&given, asks("https://b/")).unwrap_err().contains("expected Method::Get https://a/"));
    }

    #[test]
    fn a_misspelt_member_is_a_mistake() {
        let given = case("{name: a, call: fit, request: {model: {fromat: gguf}}, answer: {}}");
        let question = question::<adapter::Request>(&given, "Server");
        assert_eq!(question.unwrap_err(), "there is no request.model.fromat");
    }

    #[test]
    fn defaults_fill_records_but_no_absent_option() {
        let server: adapter::Request = request("Server", json!({"model": {"format": "gguf"}}));
        assert_eq!((server.model.name.as_str(), server.gpu.is_none()), ("example", true));
        let server: adapter::Request = request("Server", json!({"gpu": {"vendor": "nvidia"}}));
        assert_eq!(server.gpu.map(|gpu| gpu.count), Some(1));
    }
}
