//! Adds to a guest's core module what no compiler would write: a huge table, many tables, many memories. The results are core
//! modules beside the input's name in a folder; a packager makes components of them. It knows nothing of hosts.

use std::{env, error::Error, fs, path::Path};

use wasm_encoder::{
    MemorySection, MemoryType, Module, RefType, TableSection, TableType,
    reencode::{Error as ReencodeError, Reencode, utils},
};

/// What to add to a module.
#[derive(Clone, Copy)]
struct Bomb {
    name: &'static str,
    /// Elements added to the guest's own table.
    own_elements: u64,
    /// Pages (64 KiB) added to the guest's own memory.
    own_pages: u64,
    tables: u32,
    /// Initial elements of each further table.
    elements: u64,
    memories: u32,
    /// Initial pages of each further memory.
    pages: u64,
}

const NOTHING: Bomb = Bomb { name: "", own_elements: 0, own_pages: 0, tables: 0, elements: 0, memories: 0, pages: 0 };

/// Each one passes a limit that counts only one thing at a time.
const BOMBS: [Bomb; 6] = [
    Bomb { name: "large-table", own_elements: 10_000_000, ..NOTHING },
    Bomb { name: "large-memory", own_pages: 8192, ..NOTHING },
    Bomb { name: "second-table", tables: 1, elements: 10_000_000, ..NOTHING },
    Bomb { name: "many-tables", tables: 90, elements: 10_000, ..NOTHING },
    Bomb { name: "many-memories", memories: 40, pages: 1, ..NOTHING },
    Bomb { name: "large-memories", memories: 4, pages: 2048, ..NOTHING },
];

impl Reencode for &Bomb {
    type Error = std::convert::Infallible;

    fn table_type(&mut self, table: wasmparser::TableType) -> Result<TableType, ReencodeError<Self::Error>> {
        let own = utils::table_type(self, table)?;
        let maximum = if self.own_elements == 0 { own.maximum } else { None };
        Ok(TableType { minimum: own.minimum + self.own_elements, maximum, ..own })
    }

    fn memory_type(&mut self, memory: wasmparser::MemoryType) -> Result<MemoryType, ReencodeError<Self::Error>> {
        let own = utils::memory_type(self, memory);
        Ok(MemoryType { minimum: own.minimum + self.own_pages, ..own })
    }

    fn parse_table_section(
        &mut self,
        tables: &mut TableSection,
        section: wasmparser::TableSectionReader<'_>,
    ) -> Result<(), ReencodeError<Self::Error>> {
        utils::parse_table_section(self, tables, section)?;
        for _ in 0..self.tables {
            let element_type = RefType::FUNCREF;
            tables.table(TableType { element_type, table64: false, minimum: self.elements, maximum: None, shared: false });
        }
        Ok(())
    }

    fn parse_memory_section(
        &mut self,
        memories: &mut MemorySection,
        section: wasmparser::MemorySectionReader<'_>,
    ) -> Result<(), ReencodeError<Self::Error>> {
        utils::parse_memory_section(self, memories, section)?;
        for _ in 0..self.memories {
            let (minimum, maximum, page_size_log2) = (self.pages, None, None);
            memories.memory(MemoryType { minimum, maximum, memory64: false, shared: false, page_size_log2 });
        }
        Ok(())
    }
}

fn arm(module: &[u8], mut bomb: &Bomb) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut armed = Module::new();
    bomb.parse_core_module(&mut armed, wasmparser::Parser::new(0), module)
        .map_err(|error| format!("adding {} to the module: {error}", bomb.name))?;
    let armed = armed.finish();
    wasmparser::Validator::new()
        .validate_all(&armed)
        .map_err(|error| format!("checking the module with {}: {error}", bomb.name))?;
    Ok(armed)
}

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let (Some(module), Some(folder)) = (arguments.next(), arguments.next()) else {
        return Err("usage: hostile-bombs MODULE.wasm FOLDER".into());
    };
    let bytes = fs::read(&module).map_err(|error| format!("reading {module}: {error}"))?;
    for bomb in &BOMBS {
        let path = Path::new(&folder).join(format!("{}.wasm", bomb.name));
        fs::write(&path, arm(&bytes, bomb)?).map_err(|error| format!("writing {}: {error}", path.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_added_is_there() {
        let mut module = Module::new();
        let mut tables = TableSection::new();
        tables.table(TableType { element_type: RefType::FUNCREF, table64: false, minimum: 1, maximum: None, shared: false });
        module.section(&tables);
        let mut memories = MemorySection::new();
        memories.memory(MemoryType { minimum: 1, maximum: None, memory64: false, shared: false, page_size_log2: None });
        module.section(&memories);
        let module = module.finish();
        for bomb in &BOMBS {
            let armed = arm(&module, bomb).unwrap();
            let (mut elements, mut pages) = (0, 0);
            for payload in wasmparser::Parser::new(0).parse_all(&armed) {
                match payload.unwrap() {
                    wasmparser::Payload::TableSection(section) => {
                        elements = section.into_iter().map(|table| table.unwrap().ty.initial).sum();
                    }
                    wasmparser::Payload::MemorySection(section) => {
                        pages = section.into_iter().map(|memory| memory.unwrap().initial).sum();
                    }
                    _ => {}
                }
            }
            assert_eq!(elements, 1 + bomb.own_elements + u64::from(bomb.tables) * bomb.elements, "{}", bomb.name);
            assert_eq!(pages, 1 + bomb.own_pages + u64::from(bomb.memories) * bomb.pages, "{}", bomb.name);
        }
    }
}
