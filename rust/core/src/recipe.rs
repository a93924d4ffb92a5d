//! What a device does for one problem: kernels as text, their launches, and where each address of their arguments
//! comes from. A recipe is worked out once on the host and needs no device to be looked at, compiled or emulated.

/// Eight bytes of a kernel's argument structure, which holds integers and addresses only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// A number known beforehand.
    Value(i64),
    /// Address of a tensor that is read, by its place among the operands; 0 if it is missing.
    Operand(usize),
    /// Address of a tensor that is written, by its place among the results.
    Result(usize),
    /// Address so many bytes into a tensor that is read.
    OperandAt(usize, usize),
    /// Address so many bytes into a tensor that is written.
    ResultAt(usize, usize),
    /// Address so many bytes into the workspace.
    Workspace(usize),
}

/// One launch of a kernel.
#[derive(Clone, Debug)]
pub struct Launch {
    /// Translation unit that defines the kernel [`ENTRY`]; its includes are the headers under `cuda/`.
    pub source: String,
    /// Blocks.
    pub grid: u32,
    /// Threads of a block.
    pub block: u32,
    /// Bytes of dynamic shared memory.
    pub shared: u32,
    /// The argument structure.
    pub words: Vec<Word>,
}

/// The launches that serve one problem, in order.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Launches on one stream.
    pub launches: Vec<Launch>,
    /// Bytes of workspace, content arbitrary.
    pub workspace: usize,
}

/// Name of the kernel in every translation unit.
pub const ENTRY: &str = "striate_kernel";

/// A kernel in the making: which header it comes from, what it is instantiated with, and its arguments.
pub struct Unit<'a> {
    /// Header under `cuda/`.
    pub header: &'a str,
    /// Type of the argument structure.
    pub arguments: &'a str,
    /// The device function and its template arguments.
    pub function: &'a str,
    /// Constants of the struct `K`, which `function` may name.
    pub constants: &'a [(&'a str, i64)],
    /// Types of the struct `K`.
    pub types: &'a [(&'a str, &'a str)],
}

impl Unit<'_> {
    /// Its translation unit for blocks of so many threads, of which a multiprocessor is to hold `threads` at least,
    /// and arguments of so many words. The text depends on nothing else, so that equal kernels are compiled once.
    pub fn source(&self, block: u32, threads: u32, words: usize) -> String {
        let Unit { header, arguments, function, .. } = self;
        let mut text = format!("#include \"{header}\"\nnamespace striate {{\nstruct K {{\n");
        for (name, kind) in self.types {
            text += &format!("    using {name} = {kind};\n");
        }
        for (name, value) in self.constants {
            text += &format!("    static constexpr int {name} = {value};\n");
        }
        text += &format!(
            "}};\nusing Arguments = {arguments};\n\
             static_assert(sizeof(Arguments) == {bytes}, \"the host passes {words} words\");\n}}\n\
             extern \"C\" __global__ void __launch_bounds__({block}, {blocks}) {ENTRY}(const __grid_constant__ \
             striate::Arguments args) {{\n    using namespace striate;\n    {function}(args);\n}}\n",
            bytes = words * 8,
            blocks = (threads / block).max(1),
        );
        text
    }
}

/// Words of values.
pub fn values(numbers: impl IntoIterator<Item = i64>) -> impl Iterator<Item = Word> {
    numbers.into_iter().map(Word::Value)
}
