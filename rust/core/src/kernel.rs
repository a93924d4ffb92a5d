//! What a kernel row is: a name, a predicate, and a compiler from problems to programs.

use crate::axis::Pass;
use crate::geometry::Role;
use crate::pool::Pool;
use crate::problem::{Layout, Problem};
use crate::view::{Tensor, TensorMut};

/// Why a row refuses a problem, for `explain`.
pub type Why = String;

/// The tensors of one run and the bytes it may scribble on.
pub struct Operands<'a> {
    /// First operand of the pass: input, or output gradient.
    pub first: Tensor<'a>,
    /// Second operand: weight, or input for the weight gradient.
    pub second: Tensor<'a>,
    /// Added to the produced activations, one value per channel, in the weight's type.
    pub bias: Option<Tensor<'a>>,
    /// The produced tensor.
    pub out: TensorMut<'a>,
    /// At least [`Program::workspace`] bytes of arbitrary content.
    pub workspace: &'a mut [u8],
}

/// A kernel compiled for one problem: offsets, tiles and bands worked out once, run many times.
pub trait Program: Send + Sync {
    /// Bytes of workspace a run on `width` slots needs.
    fn workspace(&self, width: usize) -> usize;
    /// Runs it. The operands are laid out as [`Problem::strides`] says; every element of `out` is written.
    fn run(&self, operands: Operands<'_>, pool: &dyn Pool);
}

/// One row of a device's kernel table. The table's order is the order of preference. What it compiles a problem to is
/// a program on the processor and a [`crate::Recipe`] on a device.
pub struct Kernel<C = Box<dyn Program>> {
    /// Unique name: family, vector direction, instruction set.
    pub name: &'static str,
    /// Operator family.
    pub op: &'static str,
    /// Passes it can produce.
    pub passes: &'static [Pass],
    /// Memory orders it reads and writes.
    pub layouts: &'static [Layout],
    /// Instruction set it is compiled for.
    pub isa: &'static str,
    /// Whether this processor can run it.
    pub available: fn() -> bool,
    /// Whether it takes the problem, or why not.
    pub supports: fn(&Problem) -> Result<(), Why>,
    /// What runs a supported problem.
    pub compile: fn(&Problem) -> C,
    /// One sentence for the kernel table.
    pub note: &'static str,
}

impl Problem {
    /// Strides of a tensor in canonical order, in elements: activations dense in the problem's layout, the weight
    /// `[group * c_out, c_in, k...]` contiguous as torch stores it.
    pub fn strides(&self, role: Role) -> [usize; 6] {
        let d = self.geometry.dims(role).map(|size| size.max(1));
        let [_, g, c, a, b, e] = d;
        match (role, self.layout) {
            (Role::Weight, _) => {
                let k = a * b * e;
                [c * k, d[0] * c * k, k, b * e, e, 1]
            }
            (_, Layout::Nchw) => [g * c * a * b * e, c * a * b * e, a * b * e, b * e, e, 1],
            (_, Layout::Nhwc) => [g * c * a * b * e, c, 1, g * c * b * e, g * c * e, g * c],
        }
    }

    /// Storage type of a tensor.
    pub fn dtype_of(&self, role: Role) -> crate::problem::DType {
        if role == Role::Weight { self.weight_dtype } else { self.dtype }
    }

    /// Number of elements of a tensor.
    pub fn elements(&self, role: Role) -> usize {
        self.geometry.dims(role).iter().product()
    }
}
