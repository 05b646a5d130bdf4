//! Writes core modules by hand, instruction by instruction, for guests that no compiler would make. Knows no host.
#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use substratus::plugin::package::PackageError;
use substratus::plugin::{Manifest, package};
use wasm_encoder::{
    CodeSection, ConstExpr, DataSection, EntityType, ExportKind, ExportSection, Function, FunctionSection, GlobalSection,
    GlobalType, ImportSection, Instruction, MemorySection, MemoryType, Module, RefType, StartSection, TableSection, TableType,
    TypeSection, ValType,
};

/// Where the answer of a good `fit` lies: score 50, reason `ok`.
pub(crate) const FIT: i32 = 1024;
/// Where the answer `unsupported("ok")` of a `result` with a plan lies.
pub(crate) const UNSUPPORTED: i32 = 1040;
/// A text of two bytes.
pub(crate) const TEXT: i32 = 2048;

/// What is special about a guest; the rest is a plain adapter that answers `fit` with 50.
#[derive(Default)]
pub(crate) struct Guest {
    /// Function imported as `fn 0`: module, name, parameters (all i32), without result.
    pub(crate) import: Option<(&'static str, &'static str, usize)>,
    /// Body of the first exported function: one i32 in, one i32 out.
    pub(crate) body: Option<Vec<Instruction<'static>>>,
    /// Body of the start function.
    pub(crate) start: Option<Vec<Instruction<'static>>>,
    /// Body of what is called once the answer is read: one i32 in.
    pub(crate) post: Option<Vec<Instruction<'static>>>,
    /// Body of `cabi_realloc`.
    pub(crate) realloc: Option<Vec<Instruction<'static>>>,
    /// Pages of each memory.
    pub(crate) memories: Vec<u64>,
    /// How many tables there are.
    pub(crate) tables: usize,
    /// Elements of one more table.
    pub(crate) elements: u64,
    /// Bytes put over the others.
    pub(crate) data: Vec<(i32, Vec<u8>)>,
    /// A loader in place of an adapter.
    pub(crate) loader: bool,
}

impl Guest {
    /// The component, packaged as an author's would be.
    pub(crate) fn component(self) -> Vec<u8> {
        self.packaged().unwrap()
    }

    /// What the packager says of it.
    pub(crate) fn packaged(self) -> Result<Vec<u8>, PackageError> {
        let (world, role) = if self.loader { ("model-loader", "ModelLoader") } else { ("server-adapter", "ServerAdapter") };
        let manifest = format!("{{name: hostile, version: 0.1.0, role: {role}, host: '0.1'}}");
        let mut module = self.module();
        let mut resolve = wit_parser::Resolve::default();
        let wit = concat!(env!("CARGO_MANIFEST_DIR"), "/../wit");
        let (package, _) = resolve.push_dir(wit).unwrap();
        let world = resolve.select_world(&[package], Some(world)).unwrap();
        wit_component::embed_component_metadata(&mut module, &resolve, world, wit_component::StringEncoding::UTF8).unwrap();
        package::package_module(&module, &Manifest::from_yaml(&manifest).unwrap())
    }

    fn module(self) -> Vec<u8> {
        let mut module = Module::new();
        let imported = u32::from(self.import.is_some());
        let (i, params) = (ValType::I32, self.import.map_or(0, |(_, _, params)| params));
        let mut types = TypeSection::new();
        types.ty().function([i], [i]);
        types.ty().function([], []);
        types.ty().function([i, i, i, i], [i]);
        types.ty().function(vec![i; params], []);
        types.ty().function([i], []);
        module.section(&types);
        if let Some((from, name, _)) = self.import {
            let mut imports = ImportSection::new();
            imports.import(from, name, EntityType::Function(3));
            module.section(&imports);
        }
        let mut functions = FunctionSection::new();
        for kind in [0, 0, 2, 1].into_iter().chain(self.post.is_some().then_some(4)) {
            functions.function(kind);
        }
        module.section(&functions);
        let mut tables = TableSection::new();
        for minimum in std::iter::repeat_n(1, self.tables).chain((self.elements > 0).then_some(self.elements)) {
            tables.table(TableType { element_type: RefType::FUNCREF, table64: false, minimum, maximum: None, shared: false });
        }
        if !tables.is_empty() {
            module.section(&tables);
        }
        let mut memories = MemorySection::new();
        for minimum in if self.memories.is_empty() { vec![2] } else { self.memories } {
            memories.memory(MemoryType { minimum, maximum: None, memory64: false, shared: false, page_size_log2: None });
        }
        module.section(&memories);
        let mut globals = GlobalSection::new();
        globals.global(GlobalType { val_type: i, mutable: true, shared: false }, &ConstExpr::i32_const(65_536));
        module.section(&globals);
        let mut exports = ExportSection::new();
        let names = if self.loader {
            ["model-loading@0.1.0#resolve", "model-loading@0.1.0#refresh"]
        } else {
            ["serving@0.1.0#fit", "serving@0.1.0#serve"]
        };
        for (name, index) in names.iter().zip(imported..) {
            exports.export(&format!("substratus:plugin/{name}"), ExportKind::Func, index);
        }
        if self.post.is_some() {
            exports.export(&format!("cabi_post_substratus:plugin/{}", names[0]), ExportKind::Func, imported + 4);
        }
        exports.export("cabi_realloc", ExportKind::Func, imported + 2);
        exports.export("memory", ExportKind::Memory, 0);
        module.section(&exports);
        if self.start.is_some() {
            module.section(&StartSection { function_index: imported + 3 });
        }
        let good = vec![Instruction::I32Const(if self.loader { UNSUPPORTED } else { FIT })];
        let mut code = CodeSection::new();
        for body in [
            self.body.unwrap_or(good),
            vec![Instruction::Unreachable],
            self.realloc.unwrap_or_else(bump),
            self.start.unwrap_or_default(),
        ]
        .into_iter()
        .chain(self.post)
        {
            let mut function = Function::new([(1, i)]);
            for instruction in &body {
                function.instruction(instruction);
            }
            function.instruction(&Instruction::End);
            code.function(&function);
        }
        module.section(&code);
        module.section(&data(self.data));
        module.finish()
    }
}

/// The answers that a good guest gives, and what a bad one has beside them.
fn data(more: Vec<(i32, Vec<u8>)>) -> DataSection {
    let mut data = DataSection::new();
    let (text, length) = (TEXT.to_le_bytes(), 2_i32.to_le_bytes());
    data.active(0, &ConstExpr::i32_const(FIT), [[50, 0, 0, 0], text, length].concat());
    data.active(0, &ConstExpr::i32_const(UNSUPPORTED), [[1, 0, 0, 0], [0; 4], [8, 0, 0, 0], text, length].concat());
    data.active(0, &ConstExpr::i32_const(TEXT), *b"ok");
    for (at, bytes) in more {
        data.active(0, &ConstExpr::i32_const(at), bytes);
    }
    data
}

/// An allocator that only ever goes forward.
fn bump() -> Vec<Instruction<'static>> {
    vec![
        Instruction::GlobalGet(0),
        Instruction::GlobalGet(0),
        Instruction::LocalGet(3),
        Instruction::I32Add,
        Instruction::I32Const(7),
        Instruction::I32Add,
        Instruction::I32Const(-8),
        Instruction::I32And,
        Instruction::GlobalSet(0),
    ]
}

/// Repeats for ever.
pub(crate) fn forever(body: Vec<Instruction<'static>>) -> Vec<Instruction<'static>> {
    let mut all = vec![Instruction::Loop(wasm_encoder::BlockType::Empty)];
    all.extend(body);
    all.extend([Instruction::Br(0), Instruction::End, Instruction::Unreachable]);
    all
}

/// Repeats so often, in a function of one parameter, and then gives `answer`.
pub(crate) fn times(count: i32, body: Vec<Instruction<'static>>, answer: i32) -> Vec<Instruction<'static>> {
    let mut all = vec![Instruction::Loop(wasm_encoder::BlockType::Empty)];
    all.extend(body);
    all.extend([
        Instruction::LocalGet(1),
        Instruction::I32Const(1),
        Instruction::I32Add,
        Instruction::LocalTee(1),
        Instruction::I32Const(count),
        Instruction::I32LtU,
        Instruction::BrIf(0),
        Instruction::End,
        Instruction::I32Const(answer),
    ]);
    all
}
