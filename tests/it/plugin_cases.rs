//! Every first-party plugin, and the example in another language, answers its cases in the real host, under the real limits. Knows none of them by name.

use substratus::plugin::{PluginOptions, Plugins, cases};
use substratus_tests::guests;

#[tokio::test]
async fn every_plugin_answers_its_cases_in_the_sandbox() {
    let cache = tempfile::tempdir().unwrap();
    let plugins = Plugins::open(PluginOptions { cache: cache.path().to_owned(), bundled: Vec::new() }).unwrap();
    let folders = guests::plugins().unwrap().into_iter().map(|folder| (guests::component(&folder).unwrap(), folder));
    let python = (guests::python_importer().unwrap(), guests::PYTHON.to_owned());
    for (component, folder) in folders.chain([python]) {
        let loaded = plugins.add_file(&component).unwrap();
        let results = cases::run_all(&plugins, &loaded.digest, &guests::root().join(&folder).join("cases")).await.unwrap();
        assert!(!results.is_empty(), "{folder} has no case");
        let failed: Vec<_> = results.iter().filter(|result| result.mistake.is_some()).collect();
        assert!(failed.is_empty(), "{folder}: {failed:#?}");
    }
}

#[test]
fn bundled_plugins_are_the_valid_files_of_a_folder() {
    let (cache, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let good = guests::component("plugins/gpu-generic").unwrap();
    std::fs::copy(&good, folder.path().join("gpu-generic.wasm")).unwrap();
    std::fs::write(folder.path().join("broken.wasm"), b"\0asm garbage").unwrap();
    std::fs::write(folder.path().join("notes.txt"), b"not a plugin").unwrap();
    let options = PluginOptions { cache: cache.path().to_owned(), bundled: vec![folder.path().to_owned()] };
    let bundled = Plugins::open(options).unwrap().bundled();
    assert_eq!(bundled.iter().map(|loaded| loaded.manifest.name.as_str()).collect::<Vec<_>>(), ["gpu-generic"]);
}
