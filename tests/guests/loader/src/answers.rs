//! Misbehaviour in answers: well-typed and wrong. `good` is the one answer that is right.

use substratus_plugin::{
    Digest, Failure, Problem,
    loader::{File, HttpOrigin, ModelFacts, OciOrigin, Origin, PlanPage},
};

const URL: &str = "https://hub.example/a";

/// The answer that `how` names; `None` where it names something else.
pub(crate) fn answer(how: &str, cursor: Option<&str>) -> Option<Result<PlanPage, Failure>> {
    let files = match how {
        "good" => vec![file("a")],
        "absolute" => vec![file("/etc/passwd")],
        "dotdot" => vec![file("a/../../b")],
        "backslash" => vec![file("a\\..\\b")],
        "empty-path" => vec![file("")],
        "control-path" => vec![file("a\u{0}b")],
        "long-path" => vec![file(&"a/".repeat(4096))],
        "records-path" => vec![file("../.substratus/manifest.json")],
        "duplicate" => vec![file("a"), file("b"), file("a")],
        "case" => vec![file("Model"), file("model")],
        "file-and-folder" => vec![file("a"), file("a/b")],
        "outside" => vec![at("https://evil.example/a", None)],
        "file-url" => vec![at("file:///etc/passwd", None)],
        "metadata-url" => vec![at("http://169.254.169.254/", None)],
        "userinfo-url" => vec![at("https://user:password@hub.example/a", None)],
        "secret-elsewhere" => vec![at("https://evil.example/a", Some("hub"))],
        "secret-unknown" => vec![at(URL, Some("not-mine"))],
        "origin-header" => vec![with_header("Authorization", "Bearer mine")],
        "origin-split" => vec![with_header("x", "a\r\nb: c")],
        "object" => vec![File { origin: Origin::Object("file:///bucket".into()), ..file("a") }],
        "oci" => vec![File { origin: oci(), ..file("a") }],
        "sha1" => vec![digest("sha1", "da39a3ee5e6b4b0d3255bfef95601890afd80709")],
        "not-hex" => vec![digest("sha256", "../../../../etc/passwd")],
        "wrong-digest" => vec![digest("sha256", &"0".repeat(64))],
        "size-overflow" => vec![sized("a", u64::MAX), sized("b", u64::MAX)],
        "many-files" => (0..200_000).map(|n| file(&n.to_string())).collect(),
        _ => return other(how, cursor),
    };
    Some(Ok(page(files)))
}

fn other(how: &str, cursor: Option<&str>) -> Option<Result<PlanPage, Failure>> {
    let one = || page(vec![file("a")]);
    Some(match how {
        "empty" => Ok(page(Vec::new())),
        "no-revision" => Ok(PlanPage { revision: String::new(), ..one() }),
        "revision-control" => Ok(PlanPage { revision: "a\nb".into(), ..one() }),
        "huge" => Ok(PlanPage { warnings: vec!["x".repeat(64 << 20)], ..one() }),
        "warnings" => Ok(PlanPage { warnings: vec!["x\n".repeat(1000); 1000], ..one() }),
        "deep-json" => Ok(PlanPage { extensions: vec![("deep".into(), "[".repeat(1 << 20))], ..one() }),
        "same-cursor" => Ok(PlanPage { next: Some("same".into()), ..page(Vec::new()) }),
        "endless" => {
            let n: u64 = cursor.and_then(|text| text.parse().ok()).unwrap_or(0);
            Ok(PlanPage { next: Some((n + 1).to_string()), ..page(vec![file(&n.to_string())]) })
        }
        "endless-empty" => {
            let n: u64 = cursor.and_then(|text| text.parse().ok()).unwrap_or(0);
            Ok(PlanPage { next: Some((n + 1).to_string()), ..page(Vec::new()) })
        }
        "moving" => {
            let revision = format!("r{}", cursor.unwrap_or_default());
            Ok(PlanPage { revision, next: cursor.is_none().then(|| "2".into()), ..one() })
        }
        "entrypoint" => Ok(PlanPage { facts: Some(facts("../../etc/passwd")), ..one() }),
        "failure-long" => Err(Failure::NotFound("x".repeat(3 << 20))),
        "failure-control" => Err(Failure::NotFound("first\nsecond \u{1b}[31mred\u{1b}[0m \u{202e}txet".into())),
        "failure-many" => {
            let problem = Problem { field: "spec.source".into(), reason: "no".into() };
            Err(Failure::Invalid(vec![problem; 10_000]))
        }
        "rate-limited" => Err(Failure::RateLimited(Some(u32::MAX))),
        "invalid-utf8" => Err(Failure::NotFound(invalid_utf8())),
        _ => return None,
    })
}

pub(crate) fn page(files: Vec<File>) -> PlanPage {
    PlanPage { revision: "r1".into(), files, facts: None, warnings: Vec::new(), next: None, extensions: Vec::new() }
}

pub(crate) fn file(path: &str) -> File {
    File { path: path.to_owned(), size: Some(1), digest: None, origin: http(URL, None) }
}

fn at(url: &str, auth: Option<&str>) -> File {
    File { origin: http(url, auth), ..file("a") }
}

fn sized(path: &str, size: u64) -> File {
    File { size: Some(size), ..file(path) }
}

fn digest(algorithm: &str, hex: &str) -> File {
    File { digest: Some(Digest { algorithm: algorithm.into(), hex: hex.into() }), ..file("a") }
}

fn with_header(name: &str, value: &str) -> File {
    let Origin::Http(origin) = http(URL, None) else { return file("a") };
    File { origin: Origin::Http(HttpOrigin { headers: vec![(name.into(), value.into())], ..origin }), ..file("a") }
}

fn http(url: &str, auth: Option<&str>) -> Origin {
    Origin::Http(HttpOrigin { url: url.into(), headers: Vec::new(), auth: auth.map(Into::into), expires: None })
}

fn oci() -> Origin {
    Origin::Oci(OciOrigin {
        repository: "../../v2/_catalog".into(),
        digest: Digest { algorithm: "sha256".into(), hex: "0".repeat(64) },
    })
}

fn facts(entrypoint: &str) -> ModelFacts {
    ModelFacts {
        format: Some("x".repeat(100_000)),
        architecture: None,
        parameters: None,
        dtype: None,
        quantization: None,
        license: Some("MIT\n\u{1b}[31m".into()),
        context_length: None,
        entrypoint: Some(entrypoint.into()),
    }
}

/// A text that is none: the host must check what crosses.
#[expect(unsafe_code, reason = "only so can a guest in Rust send bytes that are not UTF-8")]
fn invalid_utf8() -> String {
    // SAFETY: none; the string is handed to the host and never looked at here.
    unsafe { String::from_utf8_unchecked(vec![b'a', 0xff, 0xfe, b'b']) }
}
