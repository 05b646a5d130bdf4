//! Rules about the sources that no compiler checks: who may name what, and how files look. Knows nothing of what code does.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

/// Lines of a file that are not tests; whoever needs more has two jobs in one file.
const MAX_LINES: usize = 450;

/// A word that only some sources may use, outside of comments.
struct Rule {
    words: &'static [&'static str],
    /// Beginnings of paths below `host/src/`.
    allowed: &'static [&'static str],
    why: &'static str,
}

const RULES: &[Rule] = &[
    Rule {
        words: &["wasmtime::", "use wasmtime", "wasmparser::", "wit_component::", "wasm_encoder::"],
        allowed: &["plugin.rs", "plugin/"],
        why: "only the plugin host knows what a component is",
    },
    Rule { words: &["object_store::", "use object_store"], allowed: &["bucket/"], why: "everybody else writes through the sink" },
    Rule {
        words: &["kube::Client", "Api<", "Api::namespaced", "Api::all", "use kube::Api", "kube::{Api", "Client::try_default"],
        allowed: &[
            "context.rs",
            "kinds/plugin.rs",
            "kinds/plugin/",
            "leader.rs",
            "main.rs",
            "reconcile/apply.rs",
            "reconcile/caches.rs",
            "reconcile/follow.rs",
            "reconcile/image.rs",
            "reconcile/status.rs",
            "reconcile/suspend.rs",
            "run.rs",
            "store/auth.rs",
            "sub/",
        ],
        why: "the pure middle of the pipeline takes values and returns values",
    },
    Rule {
        words: &["reqwest::"],
        allowed: &["idle/jupyter.rs", "worker.rs", "worker/", "plugin/push.rs", "plugin/registry.rs", "plugin/registry/"],
        why: "the operator itself talks to the API server and to registries only",
    },
    Rule {
        words: &["jiff::Timestamp::now", "Timestamp::now", "SystemTime::now"],
        allowed: &["leader.rs", "run.rs", "worker.rs", "worker/", "plugin/cache/file.rs", "kinds/plugin/install.rs"],
        why: "pure code gets its clock handed in",
    },
];

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below a folder whose name ends so; build output and hidden folders aside.
fn files(folder: &Path, endings: &[&str], found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            if !matches!(name.as_str(), "target" | "node_modules" | ".git") {
                files(&path, endings, found)?;
            }
        } else if endings.iter().any(|ending| name.ends_with(ending)) {
            found.push(path);
        }
    }
    found.sort();
    Ok(())
}

/// Path below the repository, and text.
fn sources(folder: &str, endings: &[&str]) -> Result<Vec<(String, String)>> {
    let (root, mut found) = (repository(), Vec::new());
    files(&root.join(folder), endings, &mut found)?;
    let read = |path: PathBuf| -> Result<(String, String)> {
        let name = path.strip_prefix(&root)?.to_string_lossy().trim_start_matches("./").to_owned();
        let text = fs::read(&path).with_context(|| format!("reading {name}"))?;
        Ok((name, String::from_utf8_lossy(&text).into_owned()))
    };
    found.into_iter().map(read).collect()
}

fn rust() -> Result<Vec<(String, String)>> {
    let mut all = Vec::new();
    for folder in ["crds", "host", "plugins", "tests"] {
        all.extend(sources(folder, &[".rs"])?);
    }
    ensure!(all.len() > 50, "the sources are somewhere else");
    Ok(all)
}

fn is_test(path: &str) -> bool {
    path.ends_with("tests.rs") || path.split('/').any(|part| part == "tests") || path.starts_with("tests/it/")
}

/// Lines of code before the tests that a file has at its end, with their numbers.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(number, line)| (number + 1, line));
    lines.take_while(|(_, line)| line.trim() != "#[cfg(test)]")
}

/// Nothing found, or all of it at once.
fn none(found: &[String]) -> Result<()> {
    ensure!(found.is_empty(), "\n{}", found.join("\n"));
    Ok(())
}

#[test]
fn names_stay_where_they_belong() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in sources("host/src", &[".rs"])?.into_iter().filter(|(path, _)| !is_test(path)) {
        let below = path.trim_start_matches("host/src/");
        for rule in RULES.iter().filter(|rule| !rule.allowed.iter().any(|allowed| below.starts_with(allowed))) {
            let offends = |line: &str| !line.trim_start().starts_with("//") && rule.words.iter().any(|word| line.contains(word));
            let lines = code(&text).filter(|(_, line)| offends(line));
            found.extend(lines.map(|(number, line)| format!("{path}:{number}: {} ({})", line.trim(), rule.why)));
        }
    }
    none(&found)
}

#[test]
fn rules_name_files_that_exist() -> Result<()> {
    let files = sources("host/src", &[".rs"])?;
    for allowed in RULES.iter().flat_map(|rule| rule.allowed) {
        ensure!(files.iter().any(|(path, _)| path.contains(allowed)), "{allowed} is gone, and may do nothing any more");
    }
    Ok(())
}

#[test]
fn every_file_says_what_it_is_for() -> Result<()> {
    let silent = rust()?.into_iter().filter(|(_, text)| !text.starts_with("//! "));
    none(&silent.map(|(path, _)| format!("{path} does not open with '//!'")).collect::<Vec<_>>())
}

#[test]
fn files_have_one_job() -> Result<()> {
    let mut found = Vec::new();
    for (path, text) in rust()?.into_iter().filter(|(path, _)| !is_test(path)) {
        let lines = code(&text).count();
        if lines > MAX_LINES {
            found.push(format!("{path} has {lines} lines; more than {MAX_LINES} are more than one job"));
        }
    }
    none(&found)
}

#[test]
fn no_test_is_switched_off() -> Result<()> {
    let switched_off = ["#[ignore", concat!("#[should_", "panic")];
    let offends = |line: &str| switched_off.iter().any(|word| line.trim_start().starts_with(word));
    let found = rust()?.into_iter().filter(|(_, text)| text.lines().any(offends));
    none(&found.map(|(path, _)| format!("{path} has a test that does not run, or passes by failing")).collect::<Vec<_>>())
}

#[test]
fn no_path_of_somebodys_machine() -> Result<()> {
    // Taken apart, so that this file does not find itself.
    let roots = ["work", "root", "Users"].map(|root| format!("/{root}/"));
    let endings = [".rs", ".toml", ".md", ".yaml", ".yml", ".json", ".wit", ".sh", ".go", ".mod", "Makefile", "Dockerfile"];
    let mut found = Vec::new();
    for (path, text) in sources(".", &endings)? {
        for (number, line) in text.lines().enumerate() {
            // A path inside of an image or of a URL has something before it.
            let names = |root: &String| {
                line.match_indices(root.as_str())
                    .filter_map(|(at, _)| line.get(..at))
                    .any(|before| !before.ends_with(|c: char| c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | '}')))
            };
            if roots.iter().any(names) {
                found.push(format!("{path}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    none(&found)
}
