//! Hubs and registries that answer anything: the recorded answers of every first-party loader and importer, with members changed, left
//! out and nested at random. A plugin makes a plan of it or says why not; it never crashes, and the host takes nothing that leaves a
//! folder. Knows no plugin by name.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use std::fs;
use std::sync::{Arc, Mutex};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use serde_json::{Map, Value, json};
use substratus::plugin::types::{
    FileFilter, HttpError, HttpRequest, HttpResponse, ImportRequest, LogLevel, ResolveRequest, Subject,
};
use substratus::plugin::{Blame, HostCalls, PluginError, PluginOptions, Plugins, check_file_path};
use substratus_crds::PluginRole;
use substratus_tests::guests;
use substratus_tests::seeds::{self, Chance};

/// Seeds in a normal run; each asks every recorded question once.
const FEW: u64 = 40;
/// Answers of one question.
const MOST_REQUESTS: usize = 30;

/// Recorded answers, spoilt on their way.
struct Spoilt {
    recorded: Vec<(String, String)>,
    chance: Mutex<Chance>,
    requests: Mutex<usize>,
}

impl HostCalls for Spoilt {
    fn http(&self, request: HttpRequest) -> BoxFuture<'_, Result<HttpResponse, HttpError>> {
        let mut chance = self.chance.lock().unwrap();
        let mut requests = self.requests.lock().unwrap();
        *requests += 1;
        let same = self.recorded.iter().find(|(url, _)| *url == request.url);
        let any = self.recorded.get(usize::try_from(chance.number(0..self.recorded.len() as u64)).unwrap());
        let body = same.or(any).map(|(_, body)| body.as_str()).unwrap_or_default();
        let body = spoil(body, &mut chance);
        let status = match chance.number(0..12) {
            0 => *chance.one(&[204, 206, 301, 400, 401, 403, 404, 410, 429, 451, 500, 503, 599, 999]).unwrap(),
            _ => 200,
        };
        let headers = match chance.number(0..4) {
            0 => vec![(
                chance.one(&["link", "x-error-code", "retry-after", "docker-content-digest", "etag"]).unwrap().to_string(),
                odd(&mut chance),
            )],
            _ => vec![],
        };
        if *requests > MOST_REQUESTS {
            return std::future::ready(Err(HttpError::Unavailable("enough".into()))).boxed();
        }
        std::future::ready(Ok(HttpResponse { status, headers, body })).boxed()
    }

    fn log(&self, _: LogLevel, _: &str) {}
}

/// A text that nobody expects.
fn odd(chance: &mut Chance) -> String {
    let texts = [
        "",
        "..",
        "../../etc/passwd",
        "/absolute",
        "a\\b",
        "a/./b",
        "a//b",
        "\u{0}",
        "\u{1b}[31m",
        "\u{202e}",
        "-1",
        "1e400",
        "null",
        "sha256:",
        "sha256:zz",
        "https://evil.example/x",
        "file:///etc/passwd",
        "http://[::1",
        "\u{d7ff}\u{10ffff}",
        "<https://x/?cursor=a>; rel=\"next\"",
        "<>; rel=\"next\"",
        "0000000000000000000000000000000000000000000000000000000000000000",
        "éé",
        "model.safetensors",
        "CON",
        "%2e%2e%2f",
    ];
    let text = chance.one(&texts).copied().unwrap_or_default();
    if chance.number(0..20) == 0 { text.repeat(5_000) } else { text.to_owned() }
}

fn anything(chance: &mut Chance) -> Value {
    match chance.number(0..12) {
        0 => Value::Null,
        1 => json!(true),
        2 => json!(-1),
        3 => json!(u64::MAX),
        4 => json!(i64::MIN),
        5 => json!(1.5e300),
        6 => json!([]),
        7 => json!({}),
        8 => json!([anything(chance), anything(chance)]),
        9 => json!({(odd(chance)): anything(chance)}),
        10 => (0..60).fold(json!("deep"), |inner, _| json!([inner])),
        _ => Value::from(odd(chance)),
    }
}

/// Changes, drops, doubles members, each seldom.
fn change(value: Value, chance: &mut Chance) -> Value {
    if chance.number(0..14) == 0 {
        return anything(chance);
    }
    match value {
        Value::Array(items) => {
            let mut changed = Vec::new();
            for item in items {
                match chance.number(0..12) {
                    0 => {}
                    1 => changed.extend([item.clone(), item]),
                    _ => changed.push(change(item, chance)),
                }
            }
            changed.into()
        }
        Value::Object(members) => {
            let mut changed = Map::new();
            for (name, member) in members {
                match chance.number(0..14) {
                    0 => {}
                    1 => drop(changed.insert(odd(chance), member)),
                    _ => drop(changed.insert(name, change(member, chance))),
                }
            }
            changed.into()
        }
        other => other,
    }
}

fn spoil(body: &str, chance: &mut Chance) -> Vec<u8> {
    let mut bytes = match serde_json::from_str::<Value>(body) {
        Ok(value) => change(value, chance).to_string().into_bytes(),
        Err(_) => body.as_bytes().to_vec(),
    };
    match chance.number(0..10) {
        // Torn off, or not even text.
        0 => bytes.truncate(usize::try_from(chance.number(0..bytes.len() as u64 + 1)).unwrap()),
        1 => bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x80),
        _ => {}
    }
    bytes
}

/// The questions that a plugin's cases record answers for: the request and the answers by URL.
fn questions(folder: &str, call: &str) -> Vec<(Value, Vec<(String, String)>)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(guests::root().join(folder).join("cases")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        for case in serde_saphyr::from_multiple::<Value>(&text).unwrap() {
            let recorded = case["http"].as_array().into_iter().flatten().map(|answer| {
                let text = |name: &str| answer[name].as_str().unwrap_or_default().to_owned();
                (text("url"), text("body"))
            });
            let recorded: Vec<_> = recorded.collect();
            if case["call"] == call && !recorded.is_empty() {
                found.push((case["request"].clone(), recorded));
            }
        }
    }
    found
}

fn texts(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().filter_map(|text| text.as_str().map(str::to_owned)).collect()
}

/// Nothing of a plan leads out of its folder, whoever made it up.
fn stays_below(paths: impl Iterator<Item = String>) {
    for path in paths {
        check_file_path(&path).unwrap();
    }
}

fn judge(what: &str, error: &PluginError) {
    let expected = matches!(error, PluginError::Failure(_) | PluginError::BadAnswer { .. });
    assert!(expected, "{what}: {error:?}");
    assert!(error.blame() == Blame::Guest && !error.to_string().contains(char::is_control), "{what}: {error}");
}

#[tokio::test]
async fn whatever_a_hub_answers_a_plugin_makes_a_plan_of_it_or_says_why_not() {
    let cache = tempfile::tempdir().unwrap();
    let plugins = Plugins::open(PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() }).unwrap();
    let (mut plans, mut refusals) = (0, 0);
    for folder in guests::plugins().unwrap() {
        let loaded = plugins.add_file(&guests::component(&folder).unwrap()).unwrap();
        let (kind, call) = match loaded.manifest.role {
            PluginRole::ModelLoader => ("Model", "resolve"),
            PluginRole::DatasetImporter => ("Dataset", "plan"),
            // They ask nobody.
            PluginRole::GpuPolicy | PluginRole::ServerAdapter => continue,
        };
        let config = Value::Object(loaded.manifest.config(&Map::new()).unwrap()).to_string();
        let questions = questions(&folder, call);
        for seed in seeds::all(FEW).unwrap() {
            let mut chance = seed.begin();
            for (request, recorded) in &questions {
                let calls = Arc::new(Spoilt {
                    recorded: recorded.clone(),
                    chance: Mutex::new(seeded(&mut chance)),
                    requests: Mutex::default(),
                });
                let subject = Subject { kind: kind.into(), namespace: "default".into(), name: "m".into() };
                let source = request["source"].as_str().map(str::to_owned);
                let filter = &request["files"];
                let (include, exclude) = (texts(&filter["include"]), texts(&filter["exclude"]));
                let files = FileFilter { include, exclude, format: filter["format"].as_str().map(str::to_owned) };
                let (params, extensions, config) = (vec![], vec![], config.clone());
                let what = format!("{folder} {source:?}");
                let result = if call == "resolve" {
                    let request = ResolveRequest { subject, source, params, files, config, revision: None, extensions };
                    let page = plugins.resolve(&loaded.digest, &request, None, calls).await;
                    page.map(|page| stays_below(page.files.into_iter().map(|file| file.path)))
                } else {
                    let request = ImportRequest { subject, source, params, files, config, revision: None, extensions };
                    let page = plugins.plan_import(&loaded.digest, &request, None, calls).await;
                    page.map(|page| stays_below(page.shards.into_iter().flat_map(|shard| shard.inputs).map(|file| file.path)))
                };
                match result {
                    Ok(()) => plans += 1,
                    Err(error) => {
                        judge(&what, &error);
                        refusals += 1;
                    }
                }
            }
        }
    }
    assert!(plans > 20 && refusals > 20, "{plans} plans and {refusals} refusals: nothing was tried");
}

/// Choices of its own for every question, so that one that asks more changes no other.
fn seeded(chance: &mut Chance) -> Chance {
    Chance::of(chance.number(0..u64::MAX))
}
