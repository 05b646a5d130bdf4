//! What a person at a shell says: the variables of the hub's own client, a plugin out of a registry, and a bar that moves.

use substratus::plugin::{RegistryAuth, push};
use substratus_tests::hub::Fault;
use substratus_tests::hub::Rule;

use super::*;
use crate::plugin_registry::Registry;

fn private() -> Builder {
    Hub::builder().repo(
        Repo::model("acme/tiny")
            .file("config.json", "{}")
            .file("model.safetensors", Content::noise(7, MIB))
            .private()
            .reader(TOKEN),
    )
}

/// A load of which nothing is said but what the hub's own client reads, and the host of large files.
fn bare(bench: &Bench) -> Command {
    let mut command = bench.bare_command("load", "hf://acme/tiny");
    bench.to_folder(&mut command);
    command.args(["-o", "json"]);
    command.env("HF_ENDPOINT", format!("{}/", bench.hub.url)).args(["--grant", &bench.hub.cdn_url]);
    command
}

#[test]
fn variables_mean_what_they_mean_to_the_hubs_own_client() {
    for variable in ["HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"] {
        let bench = Bench::new(private());
        Loaded::of(bare(&bench).output().unwrap()).assert_failed("NotFound", true, &["HF_TOKEN"]);
        Loaded::of(bare(&bench).env(variable, TOKEN).output().unwrap()).assert_complete();
        bench.assert_weights();
        assert_eq!(bench.hub.stats().cdn.authorization_headers, 0);
    }
}

#[test]
fn the_newer_name_of_the_token_wins_and_a_setting_wins_over_the_address() {
    let bench = Bench::new(private());
    let mut command = bare(&bench);
    command.env("HF_TOKEN", TOKEN).env("HUGGING_FACE_HUB_TOKEN", "hf_old").env("HF_ENDPOINT", "http://127.0.0.1:9");
    // An address that is named by a setting is granted like one of the variable, the token included.
    command.args(["--config", &format!("endpoint={}", bench.hub.url)]);
    Loaded::of(command.output().unwrap()).assert_complete();
    let wrong = Loaded::of(bare(&bench).env("HF_ENDPOINT", "http://user:hf_it_secret@127.0.0.1").output().unwrap());
    wrong.assert_failed("Invalid", true, &["HF_ENDPOINT is no plain URL"]);
}

#[test]
fn a_plugin_comes_out_of_a_registry() {
    let bench = Bench::with_weights(MIB);
    let component = std::fs::read(guests::component("plugins/loader-huggingface").unwrap()).unwrap();
    let registry = bench.runtime.block_on(async {
        let registry = Registry::start().await;
        push(&registry.reference(":0.1"), &component, RegistryAuth::Anonymous, &registry.plain()).await.unwrap();
        registry
    });
    let load = |reference: &str, folder: &str| {
        let mut command = Command::new(program());
        command.args([
            "load",
            "hf://acme/tiny",
            "-o",
            "json",
            "--attempts",
            "2",
            "--plugin",
            reference,
            "--plain-http",
            &registry.host,
        ]);
        command.arg("--to").arg(bench.folder.path().join(folder)).arg("--plugin-cache").arg(bench.folder.path().join("cache"));
        command.env("HF_ENDPOINT", &bench.hub.url).args(["--grant", &bench.hub.cdn_url]).env_remove("HF_TOKEN");
        command.env("DOCKER_CONFIG", bench.folder.path());
        Loaded::of(command.output().unwrap())
    };
    load(&registry.reference(":0.1"), "model").assert_complete();
    bench.assert_weights();
    load(&format!("oci://{}", registry.reference(":0.1")), "other").assert_complete();
    load(&registry.reference(":0.2"), "none").assert_failed("PluginNotFound", true, &[&registry.reference(":0.2")]);
    load("./none.wasm", "none").assert_failed("Invalid", true, &["./none.wasm"]);
}

#[test]
fn a_terminal_gets_a_bar_and_a_pipe_gets_none() {
    let bench = Bench::with_weights(4 * MIB);
    bench.hub.fault(Rule::cdn("model.safetensors", Fault::BytesPerSecond(2 * MIB)));
    let command = bench.command();
    let words =
        std::iter::once(command.get_program()).chain(command.get_args()).map(|word| format!("'{}'", word.to_str().unwrap()));
    // A terminal of its own, of which everything comes back.
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--echo", "never", "--command", &words.collect::<Vec<_>>().join(" "), "/dev/null"]);
    let output = terminal.env_remove("HF_TOKEN").stdin(Stdio::null()).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{shown}");
    for part in ["\r\u{1b}[K[", "4.0 MiB ", "1/2 ", "model.safetensors"] {
        assert!(shown.contains(part), "{part:?} is not in {shown:?}");
    }
    // `Loaded` sees to it that a pipe gets no carriage return.
    bench.load().assert_complete();
}
