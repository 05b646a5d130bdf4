//! Decides from its bytes alone whether a component is one that we run, and reads its manifest. Runs and compiles nothing.

use substratus_crds::PluginRole;
use wasmparser::{Encoding, Parser, Payload, Validator, WasmFeatures};
use wasmtime::Engine;

use super::error::Refusal;
use super::{HOST_VERSION, MANIFEST_SECTION, Manifest};
use crate::limits::{self, Tier};

/// Names at the outermost level of a component.
#[derive(Debug, Default)]
pub(super) struct Outline {
    pub(super) manifests: Vec<Vec<u8>>,
    pub(super) imports: Vec<String>,
    pub(super) exports: Vec<String>,
    /// What each core module needs to start.
    modules: Vec<Needs>,
}

/// What something needs to start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Needs {
    pub(super) memories: u64,
    pub(super) tables: u64,
    /// Of memory: 64 KiB each.
    pub(super) pages: u64,
    /// Of tables.
    pub(super) elements: u64,
}

impl Needs {
    /// Refuses what a tier does not have, in the author's terms.
    pub(super) fn check(&self, tier: &'static Tier) -> Result<(), Refusal> {
        let mib = |pages: u64| format!("{} MiB of memory", pages.div_ceil(16));
        let (pages, elements) = ((tier.memory >> 16) as u64, tier.table_elements as u64);
        let checks = [
            (self.memories > tier.memories as u64, format!("{} memories", self.memories), tier.memories.to_string()),
            (self.tables > tier.tables as u64, format!("{} tables", self.tables), tier.tables.to_string()),
            (self.pages > pages, mib(self.pages), mib(pages)),
            (self.elements > elements, format!("{} table elements", self.elements), elements.to_string()),
        ];
        match checks.into_iter().find(|(over, ..)| *over) {
            Some((_, needed, max)) => Err(Refusal::Resources { needed, max, tier: tier.name }),
            None => Ok(()),
        }
    }
}

/// The largest tier that a role runs in: a component must be able to start in it, and its queue is this one's.
pub(super) fn tier(role: PluginRole) -> &'static Tier {
    match role {
        PluginRole::ModelLoader => &limits::STANDARD,
        PluginRole::DatasetImporter => &limits::BULK,
        PluginRole::GpuPolicy | PluginRole::ServerAdapter => &limits::PURE,
    }
}

/// The world of a role.
pub(super) fn world(role: PluginRole) -> &'static str {
    match role {
        PluginRole::ModelLoader => "model-loader",
        PluginRole::DatasetImporter => "dataset-importer",
        PluginRole::GpuPolicy => "gpu-policy",
        PluginRole::ServerAdapter => "server-adapter",
    }
}

/// The manifest of a component that we are willing to compile.
pub(super) fn check(bytes: &[u8]) -> Result<Manifest, Refusal> {
    let outline = outline(bytes)?;
    let manifest = match outline.manifests.as_slice() {
        [manifest] => Manifest::from_json(manifest)?,
        [] => return Err(Refusal::NoManifest),
        _ => return Err(Refusal::ManyManifests),
    };
    check_names(&outline, manifest.role)?;
    outline.modules.iter().try_for_each(|needs| needs.check(tier(manifest.role)))?;
    Ok(manifest)
}

/// Reads the outline of a valid component.
pub(super) fn outline(bytes: &[u8]) -> Result<Outline, Refusal> {
    let size = bytes.len() as u64;
    if size > limits::COMPONENT_BYTES {
        return Err(Refusal::TooLarge { size, max: limits::COMPONENT_BYTES });
    }
    if Engine::detect_precompiled(bytes).is_some() {
        return Err(Refusal::NativeCode);
    }
    if !bytes.starts_with(b"\0asm") {
        return Err(Refusal::NotWasm);
    }
    if Parser::is_core_wasm(bytes) {
        return Err(Refusal::CoreModule);
    }
    Validator::new_with_features(features()).validate_all(bytes).map_err(|error| Refusal::Invalid(error.to_string()))?;
    read_names(bytes)
}

fn read_names(bytes: &[u8]) -> Result<Outline, Refusal> {
    let invalid = |error: wasmparser::BinaryReaderError| Refusal::Invalid(error.to_string());
    let mut outline = Outline::default();
    let mut depth = 0_usize;
    for payload in Parser::new(0).parse_all(bytes) {
        match payload.map_err(invalid)? {
            Payload::Version { encoding: Encoding::Module, .. } if depth == 0 => return Err(Refusal::CoreModule),
            Payload::Version { encoding: Encoding::Module, .. } => outline.modules.push(Needs::default()),
            Payload::ModuleSection { .. } | Payload::ComponentSection { .. } => depth += 1,
            Payload::End(_) => depth = depth.saturating_sub(1),
            Payload::ComponentImportSection(section) if depth == 0 => {
                for import in section {
                    outline.imports.push(import.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::ComponentExportSection(section) if depth == 0 => {
                for export in section {
                    outline.exports.push(export.map_err(invalid)?.name.name.to_owned());
                }
            }
            Payload::CustomSection(section) if depth == 0 && section.name() == MANIFEST_SECTION => {
                outline.manifests.push(section.data().to_vec());
            }
            // A module's own sections: nothing nests in a module, so the last one is meant.
            Payload::MemorySection(section) => {
                for memory in section {
                    let pages = memory.map_err(invalid)?.initial;
                    let Some(needs) = outline.modules.last_mut() else { continue };
                    needs.memories += 1;
                    needs.pages = needs.pages.saturating_add(pages);
                }
            }
            Payload::TableSection(section) => {
                for table in section {
                    let elements = table.map_err(invalid)?.ty.initial;
                    let Some(needs) = outline.modules.last_mut() else { continue };
                    needs.tables += 1;
                    needs.elements = needs.elements.saturating_add(elements);
                }
            }
            _ => {}
        }
    }
    Ok(outline)
}

/// The same set as the engine's, so that a mistake is told in the author's terms before anything is compiled.
fn features() -> WasmFeatures {
    WasmFeatures::default()
        .difference(WasmFeatures::GC)
        .difference(WasmFeatures::FUNCTION_REFERENCES)
        .difference(WasmFeatures::EXCEPTIONS)
        .difference(WasmFeatures::THREADS)
        .difference(WasmFeatures::MEMORY64)
        .difference(WasmFeatures::RELAXED_SIMD)
        .difference(WasmFeatures::CM_ASYNC)
}

/// What the host gives to a role, the world's imports.
fn imports(role: PluginRole) -> &'static [&'static str] {
    match role {
        PluginRole::ModelLoader => &["types", "files", "log", "http"],
        PluginRole::DatasetImporter => &["types", "files", "log", "http", "io"],
        PluginRole::GpuPolicy | PluginRole::ServerAdapter => &["types", "log"],
    }
}

/// What a role answers, the world's export.
fn export(role: PluginRole) -> &'static str {
    match role {
        PluginRole::ModelLoader => "substratus:plugin/model-loading@0.1.0",
        PluginRole::DatasetImporter => "substratus:plugin/dataset-importing@0.1.0",
        PluginRole::GpuPolicy => "substratus:plugin/gpu-placing@0.1.0",
        PluginRole::ServerAdapter => "substratus:plugin/serving@0.1.0",
    }
}

fn check_names(outline: &Outline, role: PluginRole) -> Result<(), Refusal> {
    for import in &outline.imports {
        let ours = import.strip_prefix("substratus:plugin/").and_then(|rest| rest.split_once('@'));
        let hint = match ours {
            Some((name, HOST_VERSION)) if imports(role).contains(&name) => continue,
            Some((_, HOST_VERSION)) => "no world of this role has it".to_owned(),
            Some((_, version)) => format!("it was built against version {version} and this host has {HOST_VERSION}"),
            None => "build it for wasm32-unknown-unknown, which imports nothing else".to_owned(),
        };
        return Err(Refusal::Import { import: import.clone(), role, hint });
    }
    let export = export(role);
    if outline.exports.iter().any(|name| name == export) { Ok(()) } else { Err(Refusal::Export { export, role }) }
}

#[cfg(test)]
mod tests {
    use wasm_encoder::{Component, CustomSection, Module, ModuleSection};

    use super::*;

    const MANIFEST: &str = r#"{"name":"a","version":"0.1.0","role":"GpuPolicy","host":"0.1"}"#;

    fn component(manifests: &[&str]) -> Component {
        let mut component = Component::new();
        for manifest in manifests {
            component.section(&CustomSection { name: MANIFEST_SECTION.into(), data: manifest.as_bytes().into() });
        }
        component
    }

    fn refused(bytes: &[u8]) -> Refusal {
        check(bytes).unwrap_err()
    }

    #[test]
    fn what_is_no_component_is_told_apart() {
        assert_eq!(refused(b""), Refusal::NotWasm);
        assert_eq!(refused(b"#!/bin/sh"), Refusal::NotWasm);
        assert_eq!(refused(&Module::new().finish()), Refusal::CoreModule);
        let engine = super::super::engine::open().unwrap();
        let native = engine.precompile_component(&Component::new().finish()).unwrap();
        assert_eq!(refused(&native), Refusal::NativeCode);
        assert!(matches!(refused(b"\0asm\x0d\0\x01\0garbage"), Refusal::Invalid(_)));
        let large = vec![0; usize::try_from(limits::COMPONENT_BYTES).unwrap() + 1];
        assert!(matches!(refused(&large), Refusal::TooLarge { .. }));
    }

    #[test]
    fn exactly_one_manifest_is_needed() {
        assert_eq!(refused(&component(&[]).finish()), Refusal::NoManifest);
        assert_eq!(refused(&component(&[MANIFEST, MANIFEST]).finish()), Refusal::ManyManifests);
        assert!(matches!(refused(&component(&["{"]).finish()), Refusal::Manifest { .. }));
    }

    #[test]
    fn a_manifest_of_a_part_is_not_the_manifest_of_the_whole() {
        let mut whole = Component::new();
        whole.section(&wasm_encoder::NestedComponentSection(&component(&[MANIFEST])));
        let mut module = Module::new();
        module.section(&CustomSection { name: MANIFEST_SECTION.into(), data: MANIFEST.as_bytes().into() });
        whole.section(&ModuleSection(&module));
        assert_eq!(refused(&whole.finish()), Refusal::NoManifest);
    }

    #[test]
    fn a_missing_export_is_named() {
        let error = refused(&component(&[MANIFEST]).finish());
        assert_eq!(
            error.to_string(),
            "the component does not export `substratus:plugin/gpu-placing@0.1.0`, which a GpuPolicy must; implement it, or correct `role` in plugin.yaml",
        );
    }

    #[test]
    fn a_foreign_import_is_named_with_a_way_out() {
        let outline = Outline { imports: vec!["wasi:io/poll@0.2.0".into()], ..Outline::default() };
        let text = check_names(&outline, PluginRole::GpuPolicy).unwrap_err().to_string();
        assert!(text.contains("`wasi:io/poll@0.2.0`") && text.contains("wasm32-unknown-unknown"), "{text}");
        let http = Outline { imports: vec!["substratus:plugin/http@0.1.0".into()], ..Outline::default() };
        let text = check_names(&http, PluginRole::GpuPolicy).unwrap_err().to_string();
        assert!(text.contains("no world of this role has it"), "{text}");
        let newer = Outline { imports: vec!["substratus:plugin/log@0.2.0".into()], ..Outline::default() };
        let text = check_names(&newer, PluginRole::GpuPolicy).unwrap_err().to_string();
        assert!(text.contains("built against version 0.2.0"), "{text}");
    }

    #[test]
    fn truncated_components_never_panic() {
        let whole = component(&[MANIFEST]).finish();
        for end in 0..whole.len() {
            assert!(check(&whole[..end]).is_err());
        }
    }
}
