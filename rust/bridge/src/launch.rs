//! What all doors share: parsing lines, running a plan on addresses, and turning panics into text.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use striate_core::{Device, Operands, Pass, Pool, Problem, Program, Role, Tensor, TensorMut};
use striate_plan::Plan;

/// Why a request failed.
pub enum Failure {
    /// The caller's arguments are wrong.
    Input(String),
    /// Anything else.
    Run(String),
}

impl Failure {
    /// No row took a problem.
    pub fn refused(refused: striate_plan::Refused) -> Failure {
        Failure::Run(refused.to_string())
    }
}

/// Runs `body`; a panic in it becomes [`Failure::Run`].
pub fn guarded<T>(body: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|panic| Err(Failure::Run(panic_text(panic))))
}

/// The message of a panic.
pub fn panic_text(panic: Box<dyn Any + Send>) -> String {
    let text = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(other) => other.downcast::<&str>().map_or_else(|_| "no message".to_owned(), |text| text.to_string()),
    };
    format!("a kernel panicked, which is a bug in striate: {text}")
}

/// A problem from its line. A final word `wide` asks for a weight gradient in the accumulator's type.
pub fn parse(line: &str) -> Result<Problem, String> {
    let line = line.trim_end();
    let Some(narrow) = line.strip_suffix(" wide") else {
        return line.parse();
    };
    let problem: Problem = narrow.parse()?;
    if problem.pass != Pass::Dw {
        return Err("only a weight gradient (dw) can be wide".into());
    }
    Ok(Problem { weight_dtype: problem.dtype.accumulator(), ..problem })
}

/// Addresses of dense tensors in the problem's memory order, weights contiguous.
#[derive(Clone, Copy)]
pub struct Addresses {
    /// First operand of the pass.
    pub first: usize,
    /// Second operand of the pass.
    pub second: usize,
    /// Bias, or 0.
    pub bias: usize,
    /// The produced tensor.
    pub out: usize,
}

impl Addresses {
    /// Checks what can be told from a number: presence and alignment.
    pub fn check(&self, problem: &Problem) -> Result<(), String> {
        let [first, second, out] = Role::of(problem.pass);
        for (name, address, role) in
            [("first", self.first, first), ("second", self.second, second), ("out", self.out, out)]
        {
            let size = problem.dtype_of(role).size();
            if problem.elements(role) > 0 && (address == 0 || !address.is_multiple_of(size)) {
                return Err(format!("{name}: expected the address of {size}-byte numbers, got {address:#x}"));
            }
        }
        let size = problem.weight_dtype.size();
        if !self.bias.is_multiple_of(size) {
            return Err(format!("bias: expected the address of {size}-byte numbers, got {:#x}", self.bias));
        }
        if self.bias != 0 && problem.pass == Pass::Dw {
            return Err("bias: a weight gradient takes none".into());
        }
        if problem.device != Device::Cpu {
            return Err(format!("device: expected cpu for addresses in host memory, got {}", problem.device.name()));
        }
        Ok(())
    }
}

/// Whether the result needs no kernel, having no element.
pub fn is_empty(problem: &Problem) -> bool {
    problem.elements(Role::of(problem.pass)[2]) == 0
}

/// The program to run: the plan's, or for an empty operand (an empty sum: zeros or the bias) the definition's, so
/// that fast kernels need not think of it.
fn with_program<T>(plan: &Plan, then: impl FnOnce(&dyn Program) -> T) -> T {
    let [first, second, _] = Role::of(plan.problem.pass);
    if plan.problem.elements(first) > 0 && plan.problem.elements(second) > 0 {
        return then(plan.program.as_ref());
    }
    let rows = striate_plan::table();
    let definition = rows.last().expect("the reference row ends every table");
    then((definition.compile)(&plan.problem).as_ref())
}

/// Workspace up to this size lies on the stack.
const SMALL: usize = 4096;

/// Runs a plan. `spacious` lends workspace of at least the bytes asked for to a closure; it is called for larger
/// needs than fit on the stack.
///
/// # Safety
/// The addresses must be those of live tensors as [`Problem::strides`] lays them out, aligned to their element
/// types; nobody writes the operands or touches the result during the call.
pub unsafe fn launch(
    plan: &Plan,
    at: Addresses,
    pool: &dyn Pool,
    spacious: impl FnOnce(usize, &mut dyn FnMut(&mut [u8])) -> Result<(), String>,
) -> Result<(), String> {
    let problem = &plan.problem;
    if is_empty(problem) {
        return Ok(());
    }
    let produced = Role::of(problem.pass)[2];
    crate::memory::expect_writes(at.out, problem.elements(produced) * problem.dtype_of(produced).size());
    with_program(plan, |program| {
        let bytes = program.workspace(pool.width());
        let mut run = |workspace: &mut [u8]| {
            // SAFETY: the caller's promise is this function's contract.
            let operands = unsafe { operands(problem, at, workspace) };
            program.run(operands, pool);
        };
        match bytes {
            0 => run(&mut []),
            1..=SMALL => run(&mut [0; SMALL]),
            _ => return spacious(bytes, &mut run),
        }
        Ok(())
    })
}

/// # Safety
/// As [`launch`].
unsafe fn operands<'a>(problem: &Problem, at: Addresses, workspace: &'a mut [u8]) -> Operands<'a> {
    let [first, second, out] = Role::of(problem.pass);
    let g = &problem.geometry;
    // SAFETY: addresses, element types and layout are the caller's promise.
    unsafe {
        let tensor = |address: usize, role: Role| {
            Tensor::from_raw(address, problem.dtype_of(role), g.dims(role), problem.strides(role))
        };
        let bias = (at.bias != 0).then(|| {
            let channels = g.dims(out)[1] * g.dims(out)[2];
            Tensor::from_raw(at.bias, problem.weight_dtype, [1, 1, channels, 1, 1, 1], [channels, channels, 1, 1, 1, 1])
        });
        let made = TensorMut::from_raw(at.out, problem.dtype_of(out), g.dims(out), problem.strides(out));
        Operands { first: tensor(at.first, first), second: tensor(at.second, second), bias, out: made, workspace }
    }
}

/// Lends workspace from this library's allocator.
pub fn lend_from_heap(bytes: usize, run: &mut dyn FnMut(&mut [u8])) -> Result<(), String> {
    let mut space: Vec<u8> = Vec::new();
    space.try_reserve_exact(bytes).map_err(|_| format!("cannot allocate {bytes} bytes of workspace"))?;
    space.resize(bytes, 0);
    run(&mut space);
    Ok(())
}

/// Runs a line on raw addresses with `workers` threads of our own.
///
/// # Safety
/// As [`launch`], for the problem of the line.
pub unsafe fn run_line(line: &str, at: Addresses, workers: i64) -> Result<(), Failure> {
    let about = |why: String| Failure::Input(format!("{why} [{line}]"));
    let problem = parse(line).map_err(about)?;
    at.check(&problem).map_err(about)?;
    if workers < 1 {
        return Err(about(format!("workers: expected at least 1, got {workers}")));
    }
    let plan = crate::planning::plan(&problem).map_err(Failure::refused)?;
    let pool = crate::own_pool::OwnPool::new(usize::try_from(workers).unwrap_or(usize::MAX));
    // SAFETY: the caller's promise.
    unsafe { launch(&plan, at, &pool, lend_from_heap) }.map_err(|why| Failure::Run(format!("{why} [{line}]")))
}
