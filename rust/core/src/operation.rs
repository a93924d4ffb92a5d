//! Operations that are not a pass of a convolution: pooling, transforms, kernel construction, reductions. Their
//! tensors and settings differ from one to the next, so a request carries them as lists, and a row picks what it
//! knows by position and name.

use crate::kernel::Why;
use crate::pool::Pool;
use crate::problem::DType;
use crate::recipe::Recipe;
use crate::view::{Tensor, TensorMut};
use std::fmt;

/// What is known of a tensor before its memory is touched. Dimensions that it lacks are leading ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Signature {
    /// Element type.
    pub dtype: DType,
    /// Number of dimensions, at most 6.
    pub rank: usize,
    /// Sizes, right-aligned.
    pub dims: [usize; 6],
    /// Strides in elements, right-aligned.
    pub strides: [usize; 6],
}

impl Signature {
    /// From sizes and strides of equal length, at most 6; sizes and strides must not be negative and what they reach
    /// must be addressable.
    pub fn new(dtype: DType, sizes: &[i64], strides: &[i64]) -> Result<Signature, String> {
        let rank = sizes.len();
        if rank > 6 || strides.len() != rank {
            return Err(format!("expected at most 6 sizes and as many strides, got {sizes:?} and {strides:?}"));
        }
        let mut made = Signature { dtype, rank, dims: [1; 6], strides: [0; 6] };
        let mut last = 0u64;
        for (axis, (&size, &stride)) in sizes.iter().zip(strides).enumerate() {
            let (Ok(size), Ok(stride)) = (u64::try_from(size), u64::try_from(stride)) else {
                return Err(format!("expected sizes and strides of at least 0, got {sizes:?} and {strides:?}"));
            };
            last = last.saturating_add(size.saturating_sub(1).saturating_mul(stride));
            made.dims[6 - rank + axis] = size as usize;
            made.strides[6 - rank + axis] = stride as usize;
        }
        if last > 1 << 53 {
            return Err(format!("a tensor of {sizes:?} at strides {strides:?} is too large to address"));
        }
        Ok(made)
    }

    /// The dimensions that exist.
    pub fn sizes(&self) -> &[usize] {
        &self.dims[6 - self.rank..]
    }

    /// Number of elements.
    pub fn elements(&self) -> usize {
        self.dims.iter().product()
    }

    /// Whether its elements follow each other in memory in the order of its dimensions.
    pub fn is_contiguous(&self) -> bool {
        let mut expected = 1;
        self.elements() == 0
            || self.dims.iter().zip(&self.strides).rev().all(|(&size, &stride)| {
                let fits = size == 1 || stride == expected;
                expected *= size;
                fits
            })
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype.name(), self.sizes())
    }
}

/// The settings of a call, written as words `name=value`, where a value is numbers joined by `x` or a word:
/// `window=3x3 ceil=1 activation=silu`.
#[derive(Clone, Copy, Debug)]
pub struct Settings<'a>(pub &'a str);

impl<'a> Settings<'a> {
    /// The value of a name.
    pub fn word(&self, name: &str) -> Result<&'a str, String> {
        self.0
            .split_whitespace()
            .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
            .ok_or_else(|| format!("{name}: missing in the settings {:?}", self.0))
    }

    /// The integers of a name.
    pub fn integers(&self, name: &str) -> Result<Vec<i64>, String> {
        let value = self.word(name)?;
        value
            .split('x')
            .map(|part| part.parse().map_err(|_| format!("{name}: expected integers joined by x, got {value:?}")))
            .collect()
    }

    /// The one integer of a name.
    pub fn integer(&self, name: &str) -> Result<i64, String> {
        match self.integers(name)?[..] {
            [value] => Ok(value),
            _ => Err(format!("{name}: expected one integer, got {:?}", self.word(name)?)),
        }
    }

    /// The number of a name.
    pub fn number(&self, name: &str) -> Result<f64, String> {
        let value = self.word(name)?;
        value.parse().map_err(|_| format!("{name}: expected a number, got {value:?}"))
    }
}

/// A call to be made.
pub struct Request<'a> {
    /// Name of the operation.
    pub op: &'a str,
    /// Its settings.
    pub settings: Settings<'a>,
    /// What is read; an optional tensor may be missing.
    pub operands: &'a [Option<Signature>],
    /// What is written, allocated by the caller; an operand that is updated in place stands here.
    pub results: &'a [Signature],
}

impl Request<'_> {
    /// A present operand.
    pub fn operand(&self, index: usize) -> Result<&Signature, Why> {
        self.operands
            .get(index)
            .and_then(Option::as_ref)
            .ok_or_else(|| format!("operand {index}: expected a tensor, got none"))
    }

    /// A result.
    pub fn result(&self, index: usize) -> Result<&Signature, Why> {
        self.results.get(index).ok_or_else(|| format!("result {index}: expected a tensor, got none"))
    }
}

impl fmt::Display for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.op, self.settings.0)?;
        for operand in self.operands {
            match operand {
                Some(tensor) => write!(f, " {tensor}")?,
                None => write!(f, " -")?,
            }
        }
        write!(f, " ->")?;
        self.results.iter().try_for_each(|tensor| write!(f, " {tensor}"))
    }
}

/// The tensors of one call and the bytes it may scribble on.
pub struct Arguments<'a> {
    /// As in the request.
    pub operands: Vec<Option<Tensor<'a>>>,
    /// As in the request. No two overlap, nor does one overlap an operand.
    pub results: Vec<TensorMut<'a>>,
    /// At least the bytes that the row asked for, content arbitrary.
    pub workspace: &'a mut [u8],
}

/// One row of the table of operations; as with convolutions, the first row that takes a request runs it.
pub struct Operation {
    /// Unique name: family, what distinguishes it, instruction set.
    pub name: &'static str,
    /// The operation it does.
    pub op: &'static str,
    /// Element types of the tensors it computes on.
    pub dtypes: &'static [DType],
    /// Instruction set it is compiled for.
    pub isa: &'static str,
    /// Whether this processor can run it.
    pub available: fn() -> bool,
    /// Whether it takes the request, or why not. What it has taken it may rely on.
    pub supports: fn(&Request<'_>) -> Result<(), Why>,
    /// A guess at the microseconds that one thread needs: below some fifty, no other is woken.
    pub work: fn(&Request<'_>) -> f64,
    /// Bytes of workspace a run on so many slots needs.
    pub workspace: fn(&Request<'_>, usize) -> usize,
    /// Runs it: every element of every result is written. The bits do not depend on the pool.
    pub run: fn(&Request<'_>, Arguments<'_>, &dyn Pool),
    /// One sentence for the kernel table.
    pub note: &'static str,
}

/// One row of a device's table of operations.
pub struct DeviceOperation {
    /// Unique name: device, family.
    pub name: &'static str,
    /// The operation it does.
    pub op: &'static str,
    /// Element types of the tensors it computes on.
    pub dtypes: &'static [DType],
    /// Whether it takes the request, or why not.
    pub supports: fn(&Request<'_>) -> Result<(), Why>,
    /// What a device does for a supported request.
    pub compile: fn(&Request<'_>) -> Recipe,
    /// One sentence for the kernel table.
    pub note: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_found_by_whole_names() {
        let settings = Settings("pad=1x-2 padding=3 mode=gauss scale=0.5");
        assert_eq!(settings.integers("pad").unwrap(), [1, -2]);
        assert_eq!(settings.integer("padding").unwrap(), 3);
        assert_eq!(settings.word("mode").unwrap(), "gauss");
        assert_eq!(settings.number("scale").unwrap(), 0.5);
        for (complaint, word) in [
            (settings.integer("pad").unwrap_err(), "one integer"),
            (settings.integers("mode").unwrap_err(), "joined by x"),
            (settings.word("missing").unwrap_err(), "missing"),
            (settings.number("mode").unwrap_err(), "a number"),
        ] {
            assert!(complaint.contains(word), "{complaint}");
        }
    }

    #[test]
    fn signatures_know_their_memory() {
        let dense = Signature::new(DType::F32, &[2, 1, 3], &[3, 99, 1]).unwrap();
        assert!(dense.is_contiguous() && dense.elements() == 6 && dense.sizes() == [2, 1, 3]);
        assert!(!Signature::new(DType::F32, &[2, 3], &[1, 2]).unwrap().is_contiguous());
        assert!(Signature::new(DType::F32, &[2, -3], &[1, 2]).is_err());
        assert!(Signature::new(DType::F32, &[1 << 40, 1 << 40], &[1 << 40, 1]).is_err());
        assert!(Signature::new(DType::F32, &[1; 7], &[1; 7]).is_err());
    }
}
