//! What a request to build a kernel from elements at learned positions says, and whether it is consistent.
//!
//! `dcls_kernel` reads weight `[F, m]`, P `[d, F, m]` and perhaps SIG `[d, F, m]` and writes the kernel
//! `[F, K...]`; `dcls_kernel_grad` reads the kernel's gradient before them and writes, per filter, the gradients of
//! weight, of each P and of each SIG as rows of m: `[F, 1 + d (+ d), m]`.

use crate::kernel::Why;
use crate::operation::{Request, Signature};
use crate::problem::DType;

/// How much of an element falls on a grid point, along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Its two neighbours, linearly; not normalised.
    Scatter,
    /// `max(0, sigma - |t - c|)`.
    Triangle,
    /// `exp(-((t - c) / sigma)^2 / 2)`.
    Gauss,
}

/// Added to the sum over the grid before it divides.
pub const EPSILON: f64 = 1e-7;

/// The sizes and choices of a request.
#[derive(Clone, Copy, Debug)]
pub struct Spacings {
    /// The profile.
    pub profile: Profile,
    /// sigma is this plus |SIG|.
    pub base: f64,
    /// Number of learned axes, 1 to 3.
    pub rank: usize,
    /// Grid sizes; missing axes are leading ones.
    pub size: [usize; 3],
    /// The axis of the grid that each row of P moves along.
    pub axes: [usize; 3],
    /// Number of filters.
    pub filters: usize,
    /// Number of elements of a filter.
    pub elements: usize,
    /// Whether there is a SIG.
    pub spread: bool,
    /// The element type of every tensor.
    pub dtype: DType,
}

impl Spacings {
    /// Reads a request. `first` is the position of the weight among the operands.
    pub fn of(request: &Request<'_>, first: usize) -> Result<Spacings, Why> {
        let profile = match request.settings.word("profile")? {
            "scatter" => Profile::Scatter,
            "triangle" => Profile::Triangle,
            "gauss" => Profile::Gauss,
            other => return Err(format!("profile: expected scatter, triangle or gauss, got {other:?}")),
        };
        let (weight, positions) = (request.operand(first)?, request.operand(first + 1)?);
        let sigma = request.operands.get(first + 2).and_then(Option::as_ref);
        let (&[filters, elements], &[rank, ..]) = (weight.sizes(), positions.sizes()) else {
            return Err(format!("weight: expected [filters, elements], got {weight} with positions {positions}"));
        };
        let grid = if first == 0 { request.result(0)? } else { request.operand(0)? };
        let axes = request.settings.integers("axes")?;
        if grid.sizes()[1..].contains(&0) {
            return Err(format!("grid: expected at least one point along every axis, got {grid}"));
        }
        if !(1..=3).contains(&rank) || grid.rank != rank + 1 || axes.len() != rank || grid.sizes()[0] != filters {
            return Err(format!("grid: expected {filters} filters of rank 1 to 3 along axes {axes:?}, got {grid}"));
        }
        let mut made = Spacings {
            profile,
            base: request.settings.number("base")?,
            rank,
            size: [1; 3],
            axes: [0; 3],
            filters,
            elements,
            spread: sigma.is_some(),
            dtype: weight.dtype,
        };
        made.size[3 - rank..].copy_from_slice(&grid.sizes()[1..]);
        for (row, &axis) in axes.iter().enumerate() {
            match usize::try_from(axis) {
                Ok(axis) if axis < rank => made.axes[row] = 3 - rank + axis,
                _ => return Err(format!("axes: expected numbers below {rank}, got {axes:?}")),
            }
        }
        let wanted = [rank, filters, elements];
        if positions.sizes() != wanted || sigma.is_some_and(|sigma| sigma.sizes() != wanted) {
            return Err(format!("P and SIG: expected {wanted:?}, got {positions} and {sigma:?}"));
        }
        if first == 1 && request.result(0)?.sizes() != [filters, made.gradients(), elements] {
            return Err(format!("result: expected [{filters}, {}, {elements}]", made.gradients()));
        }
        made.dense(request)
    }

    fn dense(self, request: &Request<'_>) -> Result<Spacings, Why> {
        let fits = |tensor: &Signature| tensor.is_contiguous() && tensor.dtype == self.dtype;
        let all = request.operands.iter().flatten().chain(request.results);
        match [DType::F32, DType::F64].contains(&self.dtype) && all.into_iter().all(fits) {
            true => Ok(self),
            false => Err("expected dense tensors of f32 or of f64".into()),
        }
    }

    /// Rows of the gradient: of weight, of every P and of every SIG.
    pub fn gradients(&self) -> usize {
        1 + self.rank * if self.spread { 2 } else { 1 }
    }

    /// Grid points.
    pub fn volume(&self) -> usize {
        self.size.iter().product()
    }
}
